"""`microaction evaluate`, for `ray job submit --working-dir . -- python -m jobs.evaluate …`."""

from microaction.cli import run

run("evaluate")
