"""What a job's command line says in a line, without a traceback. Each room's own errors are kinds of these."""


class UsageError(Exception):
    """What the user gave does not fit, or is not there; the message says what to change. Exit code 2."""


class InterruptedRunError(Exception):
    """Something came in between; the same command again goes on. Exit code 1."""
