"""`microaction pack`, for `ray job submit --working-dir . -- python -m jobs.pack …`."""

from microaction.cli import run

run("pack")
