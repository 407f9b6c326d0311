"""The exception of the registry."""

from microaction.errors import UsageError


class RegistryError(UsageError, ValueError):
    """The registry does not hold what was requested, or must not take what it was given; the message says what to do."""
