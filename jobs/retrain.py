"""`microaction retrain`, for `ray job submit --working-dir . -- python -m jobs.retrain …`."""

from microaction.cli import run

run("retrain")
