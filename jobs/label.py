"""`microaction label`, for `ray job submit --working-dir . -- python -m jobs.label …`."""

from microaction.cli import run

run("label")
