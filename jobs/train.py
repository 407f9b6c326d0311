"""`microaction train`, for `ray job submit --working-dir . -- python -m jobs.train …`."""

from microaction.cli import run

run("train")
