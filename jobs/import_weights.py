"""`microaction import`, for `ray job submit --working-dir . -- python -m jobs.import_weights …`."""

from microaction.cli import run

run("import")
