"""`microaction catalog`, for `ray job submit --working-dir . -- python -m jobs.catalog …`."""

from microaction.cli import run

run("catalog")
