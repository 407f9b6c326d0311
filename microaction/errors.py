"""The exceptions of the project, the kinds of failures that its tables record, and the exit codes of its commands.

Every exception that a command reports in one line is a `MicroactionError`. Below it are three kinds: what the user can fix
(`UsageError`), what a second run of the same command gets past (`TransientError`), and what is a bug (`InternalError`). The
rooms derive their own exceptions from these. Programming errors of callers are `ValueError`, as usual.
"""

import logging
from enum import StrEnum
from typing import ClassVar, Self

logger = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_RETRY = 1
EXIT_USAGE = 2
EXIT_TOO_MANY_FAILED = 3
EXIT_INTERRUPTED = 130

EXIT_CODES = {
    EXIT_DONE: "Done.",
    EXIT_RETRY: "Not done: run the same command again. An unreachable store or cluster, a full disk, a lease that another "
    "process holds, nodes that did not come in time, chunks that failed for transient reasons, SIGTERM; also any error without "
    "a line of its own.",
    EXIT_USAGE: "Not done: fix the command, a file or a setting. The message says which.",
    EXIT_TOO_MANY_FAILED: "Done, but not accepted: `label` with more failures than `--max-failed`, `retrain` with a candidate "
    "that a gate rejected.",
    EXIT_INTERRUPTED: "Interrupted with Ctrl-C: run the same command again to continue.",
}
"""What each exit code of a command means; the documentation is generated from this table."""


class FailureKind(StrEnum):
    """Why a video, a chunk or a clip has no result: the `error` column of the tables."""

    DECODE_ERROR = "decode_error"
    DECODER_TIMEOUT = "decoder_timeout"
    DECODER_CRASHED = "decoder_crashed"
    INVALID_REGION = "invalid_region"
    NO_SKELETON = "no_skeleton"
    WORKER_DIED = "worker_died"
    UNEXPECTED = "unexpected"
    STORAGE_ERROR = "storage_error"
    VIDEO_CHANGED = "video_changed"
    UNAVAILABLE = "unavailable"
    MODEL_ERROR = "model_error"
    NOBODY_SEEN = "nobody_seen"
    TOO_SMALL = "too_small"
    SEEN_BRIEFLY = "seen_briefly"
    OVERLAP = "overlap"
    TOO_MANY_PEOPLE = "too_many_people"

    @property
    def is_retryable(self) -> bool:
        """Whether the failure says nothing about the video, so that the next run of the command tries again by itself."""
        return self in (FailureKind.STORAGE_ERROR, FailureKind.VIDEO_CHANGED, FailureKind.MODEL_ERROR)

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return the kind that an exception declares, or `UNEXPECTED`."""
        return cls(getattr(error, "failure_kind", cls.UNEXPECTED))


RETRYABLE_KINDS = tuple(kind for kind in FailureKind if kind.is_retryable)


class MicroactionError(Exception):
    """Base class of the project's exceptions. `exit_code` is the exit code of a command that ends with it."""

    exit_code: ClassVar[int] = EXIT_RETRY


class UsageError(MicroactionError):
    """What the user gave is missing or does not fit; the message says what to change."""

    exit_code = EXIT_USAGE


class TransientError(MicroactionError):
    """Something interrupted the command; the same command continues where it stopped."""

    exit_code = EXIT_RETRY


class InternalError(MicroactionError):
    """A bug of this project; the message asks for a report."""

    exit_code = EXIT_RETRY


class DecodeError(UsageError):
    """A video cannot be read. `reason` says why in plain words; the message names the video too."""

    failure_kind: ClassVar[FailureKind] = FailureKind.DECODE_ERROR

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)  # both in args, so that the error survives a trip between processes
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class DecoderTimeoutError(DecodeError):
    """The decoder exceeded its time limit and was stopped."""

    failure_kind = FailureKind.DECODER_TIMEOUT


class DecoderCrashedError(DecodeError):
    """The decoder's process died, or exceeded its memory limit."""

    failure_kind = FailureKind.DECODER_CRASHED


class InvalidRegionError(UsageError, ValueError):
    """A region does not lie inside the frames of its video."""

    failure_kind: ClassVar[FailureKind] = FailureKind.INVALID_REGION


class VideoChangedError(TransientError):
    """A video is not the file that the catalog describes any more."""

    failure_kind: ClassVar[FailureKind] = FailureKind.VIDEO_CHANGED


def reason_of(error: BaseException) -> str:
    """Return why something has no result, in words for its users. What nobody foresaw goes to the log, with its traceback."""
    if isinstance(error, DecodeError):
        return error.reason
    if isinstance(error, MicroactionError):
        return str(error)
    logger.error("unforeseen", exc_info=error)
    return "microaction failed on it, which is a bug: please report it, with the file if possible"
