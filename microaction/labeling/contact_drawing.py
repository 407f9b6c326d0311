"""What is drawn of a frame in a contact sheet: the crop of every person in it, the number, the name, and what is not used.

Places are in pixels of the frame, which the drawing scales.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from microaction.labeling.contact import Part
from microaction.labeling.contact_frames import FramePicture
from microaction.labeling.people import start_us
from microaction.pages import clock, color_of, printable

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


def _data_uri(jpeg: bytes | None) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""
