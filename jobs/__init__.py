"""What people start: `python -m jobs.NAME --help`, on a laptop or by `ray job submit`."""
