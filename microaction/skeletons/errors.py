"""The exception of everything that concerns skeletons."""

from microaction.errors import FailureKind, UsageError


class SkeletonError(UsageError, ValueError):
    """A file of skeletons cannot be read, or does not hold what it should."""


class NoSkeletonError(SkeletonError):
    """A table of skeletons has no keypoints of a part of a video."""

    failure_kind = FailureKind.NO_SKELETON
