"""What a contact sheet shows of a video: which frames, and whose crops in them. Knows no Ray, no torch.

A frame stands for a part of a shot. Where people come, go or move to another place, a shot has several parts, so that every
crop is seen in a frame.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from microaction.errors import FailureKind
from microaction.labeling.people import duration_us, start_us
from microaction.pages import clock, slug_prefix
from microaction.schema import REGION_COLUMNS
from microaction.video.framing import Framing
from microaction.video.windows import MICROSECONDS, Span, merge_spans, subtract_spans

CONTACT_FORMAT = "contact 1"
MAX_PARTS = 60  # frames on a page: a few megabytes
INCOMPLETE = "-incomplete"  # in the name of a page that the next run draws again
PAGE_NAME = re.compile(rf"(?:[a-z0-9-]+-)?[0-9a-f]{{16}}(?:{INCOMPLETE})?\.html|index(?:-[0-9]+)?\.html")


@dataclass(frozen=True)
class Part:
    """A part of a shot, and the frame that stands for it: the one on the screen at `moment_us`.

    `people` are the spans (rows of `schema.VIDEO_PEOPLE`) of those who are there at that moment, by person.
    """

    shot: int
    span: Span
    moment_us: int
    people: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class VideoFacts:
    """A video in numbers. `left_out` counts the spans that are not labeled, by the kind of error; `problems` are lines of text.

    The numbers are None where people were not looked for; `num_people` counts those who are labeled somewhere.
    """

    is_readable: bool
    num_people: int | None = None
    num_shots: int | None = None
    nobody_s: float | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_s: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def needs_attention(self) -> bool:
        """Whether somebody should look at this video first."""
        return bool(self.problems or self.num_people == 0 or FailureKind.OVERLAP in self.left_out)


def video_facts(video: Mapping[str, Any], people: Mapping[str, Any] | None) -> VideoFacts:
    """Return the numbers of a video: a row of `schema.CATALOG`, and one of `schema.VIDEO_PEOPLE` if its people are known."""
    if video["error"] is not None:
        return VideoFacts(is_readable=False, problems=(f"it cannot be read: {video['reason']}",))
    if people is None:
        return VideoFacts(is_readable=True, problems=(_why_not_looked_at(video),))
    spans = people["spans"]
    left_out = [span for span in spans if span["error"] is not None]
    problems = [problem for problem in people["problems"] if problem["error"] != FailureKind.NOBODY_SEEN]
    unknown = [problem for problem in problems if problem["error"] != FailureKind.TOO_MANY_PEOPLE]
    known = merge_spans(Span(row["start_us"], row["end_us"]) for row in [*spans, *unknown])
    nobody_us = sum(end - start for start, end in subtract_spans(Span(0, duration_us(video)), known))
    return VideoFacts(
        is_readable=True,
        num_people=len({span["person"] for span in spans if span["error"] is None}),
        num_shots=people["num_shots"],
        nobody_s=nobody_us / MICROSECONDS,
        left_out=Counter(span["error"] for span in left_out),
        left_out_s=sum(span["end_us"] - span["start_us"] for span in left_out) / MICROSECONDS,
        problems=tuple(f"{between(row, video)}: {row['reason']}" for row in problems),
    )


def _why_not_looked_at(video: Mapping[str, Any]) -> str:
    if any(video[name] is not None for name in REGION_COLUMNS):
        return "the catalog gives a region of it, which is labeled as person 0: people were not looked for"
    return "people were not looked for in all of it"


def shots_of(looks: Iterable[Mapping[str, Any]], end_us: int) -> list[Span]:
    """Return the shots of a video, from all its looks (rows of `schema.LOOKS`), ascending."""
    cuts_us = sorted({look["cut_us"] for look in looks if look["cut_us"] is not None and 0 < look["cut_us"] < end_us})
    return [Span(start, end) for start, end in pairwise([0, *cuts_us, end_us])]


def parts_of(
    shots: Sequence[Span], spans: Sequence[Mapping[str, Any]], look_times_us: Sequence[int] = ()
) -> list[Part]:
    """Return the parts of the shots, ascending; together they are the shots.

    Every span is seen at the moment of one part at least. That is the look nearest to the part's middle, since most looks are key
    frames; without a look at which everybody of the part is there, it is a time between.
    """
    parts: list[Part] = []
    for number, shot in enumerate(shots):
        groups = list(_simultaneous(shot, spans))
        starts_us = [shot.start_us, *(group_start for group_start, _ in groups[1:]), shot.end_us]
        for (_, common), (start, end) in zip(groups, pairwise(starts_us), strict=True):
            part = Span(start, end)
            moment_us = _moment_us(common, (start + end) // 2, look_times_us)
            there = [span for span in spans if span["start_us"] <= moment_us < span["end_us"]]
            parts.append(Part(number, part, moment_us, tuple(sorted(there, key=lambda span: span["person"]))))
    return parts


def _simultaneous(shot: Span, spans: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Span]]:
    """Yield groups of spans that overlap within a shot, as few as possible: when the first begins, and when all are there."""
    first_us, common = shot.start_us, shot
    inside = [Span(max(row["start_us"], shot.start_us), min(row["end_us"], shot.end_us)) for row in spans]
    for start, end in sorted(span for span in inside if span.start_us < span.end_us):
        if start >= common.end_us:
            yield first_us, common
            first_us, common = start, Span(start, end)
        else:
            common = Span(max(common.start_us, start), min(common.end_us, end))
    yield first_us, common


def _moment_us(common: Span, middle_us: int, look_times_us: Sequence[int]) -> int:
    inside = [time_us for time_us in look_times_us if common.start_us <= time_us < common.end_us]
    if inside:
        return min(inside, key=lambda time_us: abs(time_us - middle_us))
    if common.start_us <= middle_us < common.end_us:
        return middle_us
    return (common.start_us + common.end_us) // 2


def longest(parts: Sequence[Part], max_parts: int = MAX_PARTS) -> list[Part]:
    """Return the longest parts, by time."""
    by_length = sorted(parts, key=lambda part: (part.span.start_us - part.span.end_us, part.span.start_us))
    return sorted(by_length[:max_parts], key=lambda part: part.span.start_us)


def page_name(video: Mapping[str, Any], people: Mapping[str, Any] | None, framing: Framing) -> str:
    """Return the name of a video's page, which identifies all that the page shows: what is there already is not drawn again.

    It consists of `a-z0-9-` alone, whatever the video is called.
    """
    facts = [video[name] for name in ("video", "version", "video_start_s", "error", "reason", *REGION_COLUMNS)]
    content = [CONTACT_FORMAT, *facts, None if people is None else people["key"], asdict(framing)]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return f"{slug_prefix(video['video'])}{digest}.html"


def incomplete_name(name: str) -> str:
    """Return the name of a page that lacks what another attempt may find."""
    return name.replace(".html", f"{INCOMPLETE}.html")


def is_incomplete(name: str) -> bool:
    """Return whether a page is one that the next run draws again."""
    return name.endswith(f"{INCOMPLETE}.html")


def between(row: Mapping[str, Any], video: Mapping[str, Any]) -> str:
    """Return a span's times on the file's timeline, as players show them: 0:12.5 to 0:20.0."""
    shift_us = start_us(video)
    return f"{clock(row['start_us'] + shift_us)} to {clock(row['end_us'] + shift_us)}"
