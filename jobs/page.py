"""`microaction page`, for `ray job submit --working-dir . -- python -m jobs.page …`."""

from microaction.cli import run

run("page")
