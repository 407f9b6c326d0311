"""The pages of a contact sheet as HTML. They need no other file but each other, no network, and run no script.

Names of files and people may be anything: all text is escaped by the templates, and the pages forbid scripts.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from microaction.labeling.contact import COLORS, Part, VideoFacts, clock, color_of, printable, video_facts
from microaction.labeling.contact_frames import FramePicture
from microaction.labeling.people import start_us
from microaction.video.windows import MICROSECONDS, microseconds

INDEX_PAGE = "index.html"
VIDEOS_PER_INDEX = 1000
MAX_FIRST = 50  # videos that are listed once more, to be looked at first
MAX_PROBLEMS = 3  # of a video in the index; its own page has all
MAX_BEYOND = 0.3  # of the frame's width and height that is drawn around it, where crops leave it
FONT_SIZE = 1 / 30  # of the drawing's width: 12 pixels on a phone
BADGE_WIDTH, BADGE_HEIGHT = 1.7, 1.4  # of the font's size
MARGIN = 0.2  # of the font's size
MIN_LABEL, MAX_LABEL = 3, 24  # characters of a name in a frame, as far as they fit into the crop
LABEL_SIZE, LABEL_WIDTH = 0.85, 0.55  # of a name, and of one of its characters, as fractions of the font's size

Number = int | float


@dataclass(frozen=True)
class BoxView:
    """The crop of a person in a frame, in pixels of the frame. `unused` are (x, width) of what is beyond `limits`."""

    person: int
    color: int
    name: str
    label: str
    left: int
    top: int
    width: int
    height: int
    unused: tuple[tuple[int, int], ...]
    limits: tuple[int, ...]
    badge_x: Number
    badge_y: Number
    label_x: Number
    is_left_out: bool
    error: str
    reason: str
    body: str
    square: str


@dataclass(frozen=True)
class FrameView:
    """A frame and its crops. `view` is x, y, width and height of the drawing, `badge` width and height of a number."""

    title: str
    at: str
    alt: str
    reason: str
    width: int
    height: int
    image: str
    view: tuple[Number, Number, Number, Number]
    badge: tuple[Number, Number]
    font: Number
    boxes: tuple[BoxView, ...]


@dataclass(frozen=True)
class IndexEntry:
    """A video in the index, and the name of its page."""

    page: str
    name: str
    length: str
    left_out: str
    problems: tuple[str, ...]
    facts: VideoFacts

    @classmethod
    def of(cls, video: Mapping[str, Any], people: Mapping[str, Any] | None, archive: str, page: str) -> "IndexEntry":
        """Return the entry of a video: a row of `schema.CATALOG`, and one of `schema.VIDEO_PEOPLE` if its people are known."""
        facts = video_facts(video, people)
        problems = [printable(problem) for problem in facts.problems]
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
        return cls(
            page, _name_in(archive, video["video"]), _length(video), left_out_text(facts), tuple(problems), facts
        )


def video_page(
    video: Mapping[str, Any],
    people: Mapping[str, Any] | None,
    archive: str,
    pictures: Sequence[tuple[Part, FramePicture]] = (),
    *,
    num_hidden: int = 0,
    failure: str = "",
) -> bytes:
    """Return the page of a video: a row of `schema.CATALOG`, and one of `schema.VIDEO_PEOPLE` if its people are known.

    `num_hidden` counts the parts that are not shown; `failure` says why there are no pictures at all.
    """
    facts = video_facts(video, people)
    facts = replace(facts, problems=tuple(printable(problem) for problem in facts.problems))
    shift_us = start_us(video)
    spans = [] if people is None else sorted(people["spans"], key=lambda span: (span["person"], span["start_us"]))
    page = (
        _environment()
        .get_template("contact_video.html.j2")
        .render(
            colors=COLORS,
            label_size=LABEL_SIZE,
            name=_name_in(archive, video["video"]),
            location=printable(video["video"]),
            length=_length(video),
            facts=facts,
            left_out=left_out_text(facts) or "nobody",
            failure=printable(failure),
            frames=[frame_view(part, picture, video) for part, picture in pictures],
            num_hidden=num_hidden,
            spans=[
                span
                | {
                    "color": color_of(span["person"]),
                    "name": printable(span["name"] or ""),
                    "start_s": (span["start_us"] + shift_us) / MICROSECONDS,
                    "end_s": (span["end_us"] + shift_us) / MICROSECONDS,
                    "body": printable(span["body"] or ""),
                    "error": printable(span["error"] or ""),
                    "reason": printable(span["reason"] or "the list of people says so"),
                }
                for span in spans
            ],
        )
    )
    return page.encode(errors="replace")


def index_pages(archive: str, entries: Sequence[IndexEntry], summary: str) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the pages that list all videos. `summary` says in words what was found."""
    num_pages = max(1, -(-len(entries) // VIDEOS_PER_INDEX))
    names = [INDEX_PAGE, *(f"index-{number}.html" for number in range(2, num_pages + 1))]
    first = [entry for entry in entries if entry.facts.needs_attention]
    for number, name in enumerate(names, start=1):
        page = (
            _environment()
            .get_template("contact_index.html.j2")
            .render(
                colors=COLORS,
                archive=printable(archive),
                summary=summary,
                page=number,
                num_pages=num_pages,
                pages=list(enumerate(names, start=1)),
                first=first[:MAX_FIRST] if number == 1 and len(entries) > len(first) else [],
                num_first=len(first),
                entries=entries[(number - 1) * VIDEOS_PER_INDEX : number * VIDEOS_PER_INDEX],
            )
        )
        yield name, page.encode(errors="replace")


def frame_view(part: Part, picture: FramePicture, video: Mapping[str, Any]) -> FrameView:
    """Return what is drawn of a part of a shot."""
    W, H = picture.width or video["width"] or 1, picture.height or video["height"] or 1
    shift_us = start_us(video)
    lefts, tops = [0, *(span["left"] for span in part.people)], [0, *(span["top"] for span in part.people)]
    rights = [W, *(span["left"] + span["width"] for span in part.people)]
    bottoms = [H, *(span["top"] + span["height"] for span in part.people)]
    beyond_x, beyond_y = round(MAX_BEYOND * W), round(MAX_BEYOND * H)
    x, y = max(min(lefts), -beyond_x), max(min(tops), -beyond_y)
    width, height = min(max(rights), W + beyond_x) - x, min(max(bottoms), H + beyond_y) - y
    font = round(max(width, height) * FONT_SIZE, 2)
    margin = round(font * MARGIN) if part.people else 0  # so that lines along the border are seen whole
    x, y, width, height = x - margin, y - margin, width + 2 * margin, height + 2 * margin
    badge = (round(font * BADGE_WIDTH, 2), round(font * BADGE_HEIGHT, 2))
    at = clock(part.moment_us + shift_us)
    squares = picture.squares or (None,) * len(part.people)
    boxes: list[BoxView] = []
    for span, square in zip(part.people, squares, strict=True):
        boxes.append(_box_view(span, square, (x, y, width, height), badge, boxes))
    start, end = (clock(time_us + shift_us) for time_us in part.span)
    return FrameView(
        f"Shot {part.shot}, {start} to {end}",
        at,
        f"Frame at {at}: {', '.join(_described(box) for box in boxes) or 'nobody is seen'}",
        printable(picture.reason),
        W,
        H,
        _data_uri(picture.frame),
        (x, y, width, height),
        badge,
        font,
        tuple(boxes),
    )


def _box_view(
    span: Mapping[str, Any],
    square: bytes | None,
    view: tuple[Number, Number, Number, Number],
    badge: tuple[Number, Number],
    others: Iterable[BoxView],
) -> BoxView:
    left, right = span["left"], span["left"] + span["width"]
    limits, unused = [], []
    first_x, end_x = max(left, span["limit_left"] or left), min(right, span["limit_right"] or right)
    if left < first_x < right:
        limits.append(first_x)
        unused.append((left, first_x - left))
    if left < end_x < right:
        limits.append(end_x)
        unused.append((end_x, right - end_x))
    taken = {(other.badge_x, other.badge_y) for other in others}
    badge_x: Number = min(max(first_x, view[0]), view[0] + view[2] - badge[0])
    badge_y: Number = min(max(span["top"], view[1]), view[1] + view[3] - badge[1])
    while any(abs(badge_x - x) < badge[0] and abs(badge_y - y) < badge[1] for x, y in taken):
        badge_y = round(badge_y + badge[1], 2)
    name, label_x = printable(span["name"] or ""), badge_x + 1.15 * badge[0]
    font = badge[1] / BADGE_HEIGHT
    return BoxView(
        span["person"],
        color_of(span["person"]),
        name,
        _shortened(name, int((min(end_x, view[0] + view[2]) - label_x) / (font * LABEL_WIDTH * LABEL_SIZE))),
        left,
        span["top"],
        span["width"],
        span["height"],
        tuple(unused),
        tuple(limits),
        badge_x,
        badge_y,
        round(label_x, 2),
        span["error"] is not None,
        printable(span["error"] or ""),
        printable(span["reason"] or "the list of people says so"),
        printable(span["body"] or ""),
        _data_uri(square),
    )


def _shortened(name: str, num_characters: int) -> str:
    """Return as much of a name as there is room for; nothing if that is next to nothing."""
    num_characters = min(num_characters, MAX_LABEL)
    if len(name) <= num_characters:
        return name
    return f"{name[: num_characters - 1]}…" if num_characters > MIN_LABEL else ""


def _described(box: BoxView) -> str:
    name = f" ({box.name})" if box.name else ""
    return f"person {box.person}{name}{f', left out: {box.error}' if box.is_left_out else ''}"


def left_out_text(facts: VideoFacts) -> str:
    """Return "3 spans, 0:37.0: overlap 2, too_small 1"; empty if nobody is left out."""
    return left_out_of(facts.left_out, facts.left_out_s)


def left_out_of(kinds: Counter[str], left_out_s: float) -> str:
    """Return in words how many spans are left out, how long they are, and why; empty if there are none."""
    if not kinds:
        return ""
    num_spans = kinds.total()
    why = ", ".join(f"{printable(kind)} {count}" for kind, count in kinds.most_common())
    return f"{num_spans} {'span' if num_spans == 1 else 'spans'}, {clock(microseconds(left_out_s))}: {why}"


def _name_in(archive: str, video: str) -> str:
    return printable(video.removeprefix(archive.rstrip("/") + "/"))


def _length(video: Mapping[str, Any]) -> str:
    return "unknown" if video["duration_s"] is None else clock(microseconds(video["duration_s"]))


def _data_uri(jpeg: bytes | None) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("microaction.labeling", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
