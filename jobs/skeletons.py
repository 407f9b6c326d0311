"""`microaction skeletons`, for `ray job submit --working-dir . -- python -m jobs.skeletons …`."""

from microaction.cli import run

run("skeletons")
