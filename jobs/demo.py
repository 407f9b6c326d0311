"""`microaction demo`, for `ray job submit --working-dir . -- python -m jobs.demo …`."""

from microaction.cli import run

run("demo")
