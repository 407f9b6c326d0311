"""What rows of lists say: where a file is, the part of it that counts, who is in it, and the name of a clip.

A clip that is a span of a file is named as a media fragment is addressed: `a.mp4#t=1.5,4` lasts from 1.5 s to 4 s of a.mp4.
Source of the notation: W3C, Media Fragments URI 1.0.
"""

import posixpath
import re
from typing import Any, NamedTuple

from microaction import storage
from microaction.errors import UsageError
from microaction.schema import REGION_COLUMNS
from microaction.video import Region
from microaction.video.windows import MICROSECONDS, Span, microseconds

_SECONDS = r"[0-9]+(?:\.[0-9]+)?"
_FRAGMENT = re.compile(rf"(.+)#t=({_SECONDS}),({_SECONDS})(?:&person=([0-9]+))?(?:&action=([0-9]+))?")


class ManifestError(UsageError, ValueError):
    """A list file cannot be read; the message names the file and the line."""


class SpanName(NamedTuple):
    """The name of a clip that is a span of a file. `action_id` distinguishes several actions of the same span."""

    video: str
    span: Span
    person: int | None = None
    action_id: int | None = None

    @classmethod
    def parse(cls, name: str) -> "SpanName | None":
        """Return what a name says; None for a file's name. Raises `ValueError` for a span that is empty."""
        match = _FRAGMENT.fullmatch(name)
        if match is None:
            return None
        video, start, end, person, action = match.groups()
        span = span_of(float(start), float(end))
        return cls(video, span, None if person is None else int(person), None if action is None else int(action))

    def __str__(self) -> str:
        person = "" if self.person is None else f"&person={self.person}"
        action = "" if self.action_id is None else f"&action={self.action_id}"
        return f"{self.video}#t={_decimal(self.span.start_us)},{_decimal(self.span.end_us)}{person}{action}"


def span_of(start_s: float, end_s: float) -> Span:
    """Return a span in whole microseconds. Raises `ValueError` if it does not start before it ends, at 0 s or later."""
    span = Span(microseconds(start_s), microseconds(end_s))
    if not 0 <= span.start_us < span.end_us:
        raise ValueError(f"it must start before it ends, at 0 s or later, not last from {start_s} to {end_s} s")
    return span


def _decimal(time_us: int) -> str:
    """Return a time in seconds, exactly."""
    whole, rest = divmod(time_us, MICROSECONDS)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def located(name: str, uri: str | None, videos: str) -> tuple[str, str]:
    """Return a file's name, relative to the folder of videos if it is in there, and its URI."""
    if "://" in name or name.startswith("/"):
        uri = uri or storage.absolute(name)
        folder = storage.absolute(videos) + "/"
        return uri.removeprefix(folder), uri
    name = posixpath.normpath(name)
    return name, uri or storage.join(videos, name)


def region_of(row: dict[str, Any]) -> Region | None:
    """Return the region in a row's four columns; None if they are empty. Raises `ValueError` if only some are."""
    values = [int(row[name]) for name in REGION_COLUMNS if row.get(name) is not None]
    if 0 < len(values) < len(REGION_COLUMNS):
        raise ValueError(f"give all of {', '.join(REGION_COLUMNS)}, or none")
    return Region(*values) if values else None


def subject_of(name: str) -> str | None:
    """Return the subject that a file's name begins with: the part before its first "_", if it has one."""
    subject, underscore, _ = name.rsplit("/", 1)[-1].partition("_")
    return subject if underscore and subject else None


def subject_in(row: dict[str, Any], name: str) -> str | None:
    """Return the subject in a row's column subject, or that of the name where there is no such column."""
    if "subject" not in row:
        return subject_of(name)
    return None if row["subject"] is None else str(row["subject"])


def person_in(row: dict[str, Any]) -> int | None:
    """Return the number in a row's column person. Raises `ValueError` unless it is a whole number from 1."""
    person = row.get("person")
    if person is None:
        return None
    if not isinstance(person, int | float) or person < 1 or person != int(person):
        raise ValueError(f"person ({person}) must be a whole number: 1, 2, … from left to right")
    return int(person)
