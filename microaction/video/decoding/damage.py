"""How damage shows: what FFmpeg raises or only logs, and the reasons that users read."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import av

from microaction.video.decoding.limits import MAX_PIXELS


class LostDataError(Exception):
    """The container is damaged: frames are missing, and it does not report which."""


DAMAGE_ERRORS = (av.error.FFmpegError, EOFError, LostDataError)
"""What reading or decoding a packet of a damaged file raises."""


@contextmanager
def raise_logged_errors(component: str, *, is_watched: bool, texts: tuple[str, ...] = ("",)) -> Iterator[None]:
    """Raise `LostDataError` at the end if an FFmpeg component logged an error that contains one of `texts`.

    Does nothing unless `is_watched`.
    """
    if not is_watched:
        yield
        return
    level, skips_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            yield
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips_repeated)
    if any(name.startswith(component) and any(text in message for text in texts) for _, name, message in log):
        raise LostDataError


def reason_of(error: Exception) -> str:
    """Return one of `DAMAGE_ERRORS` as the reason of a `DecodeError`."""
    if isinstance(error, EOFError):
        return "cut short: the data ends before the video does"
    if isinstance(error, LostDataError):
        return "damaged: a part of it is missing or unreadable"
    code = getattr(error, "errno", None)
    if isinstance(error, av.error.InvalidDataError) or code in (errno.EPERM, errno.EAGAIN):
        return "damaged: its data cannot be decoded"
    if code == errno.EINVAL:
        return f"damaged, or its frames are larger than {MAX_PIXELS} pixels"
    return f"cannot be decoded: {getattr(error, 'strerror', None) or error}"
