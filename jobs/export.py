"""`microaction export`, for `ray job submit --working-dir . -- python -m jobs.export …`."""

from microaction.cli import run

run("export")
