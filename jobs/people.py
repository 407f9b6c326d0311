"""`microaction people`, for `ray job submit --working-dir . -- python -m jobs.people …`."""

from microaction.cli import run

run("people")
