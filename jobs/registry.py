"""`microaction registry`, for `ray job submit --working-dir . -- python -m jobs.registry …`."""

from microaction.cli import run

run("registry")
