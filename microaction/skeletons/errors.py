"""The exception of everything that concerns skeletons."""

from microaction.errors import UsageError


class SkeletonError(UsageError, ValueError):
    """A file of skeletons cannot be read, or does not hold what it should."""
