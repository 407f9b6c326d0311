"""The commands as modules, for `ray job submit` without an installed package: `python -m jobs.NAME`."""
