"""The contact sheet without a run: which frames it shows, what it says of them, and that no name can do anything in it."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.errors import FailureKind
from microaction.labeling.contact import (
    MAX_PARTS,
    PAGE_NAME,
    Part,
    incomplete_name,
    is_incomplete,
    longest,
    page_name,
    parts_of,
    shots_of,
    video_facts,
)
from microaction.labeling.contact_drawing import frame_view
from microaction.labeling.contact_frames import MAX_SIDE, FramePicture, pictures_at
from microaction.labeling.contact_page import VIDEOS_PER_INDEX, IndexEntry, index_pages, video_page
from microaction.pages import clock
from microaction.schema import CATALOG, VIDEO_PEOPLE
from microaction.video.framing import Crop, Framing
from microaction.video.windows import MICROSECONDS, Span
from tests.pages.reading import assert_harmless
from tests.videos import number_of, write_video

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "</title></svg><script>alert(1)</script>",
    "{{ 7 * 7 }}{% for %}",
    "\u202etxt.exe\x00\x1b[31m",
    "javascript:alert(1)",
)
ARCHIVE = "/archive"


def video(name: str = "v.mp4", **facts: Any) -> dict[str, Any]:
    row = dict.fromkeys(CATALOG.names) | {"video": f"{ARCHIVE}/{name}", "version": "1", "duration_s": 60.0}
    return row | {"width": 640, "height": 360, "video_start_s": 0.0} | facts


def span(person: int, start_s: float, end_s: float, **facts: Any) -> dict[str, Any]:
    (fields,) = (field.type.value_type for field in VIDEO_PEOPLE if field.name == "spans")
    row = dict.fromkeys(field.name for field in fields) | {"person": person, "shot": 0, "body": "whole"}
    row |= {"start_us": round(start_s * MICROSECONDS), "end_us": round(end_s * MICROSECONDS)}
    return row | {"left": 10, "top": -20, "width": 200, "height": 300, "height_px": 180.0, "score": 0.5} | facts


def people(*spans: Mapping[str, Any], problems: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    return {"video": "", "key": "k", "num_shots": 1, "spans": list(spans), "problems": list(problems)}


def picture(num_people: int, *, is_seen: bool = True) -> FramePicture:
    jpeg = cv2.imencode(".jpg", np.full((36, 64, 3), 90, np.uint8))[1].tobytes()
    return FramePicture(640, 360, jpeg, (jpeg if is_seen else None,) * num_people)


def decoded(jpeg: bytes | None) -> np.ndarray:
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


# Which frames.

times = st.integers(0, 99)
drawn_spans = st.lists(st.tuples(st.integers(1, 4), times, times), max_size=12)


@given(drawn_spans, st.lists(times, max_size=4), st.lists(times, max_size=20))
def test_every_span_is_seen_in_a_frame(
    drawn: list[tuple[int, int, int]], cuts: list[int], look_times: list[int]
) -> None:
    spans = [span(who, min(a, b), max(a, b) + 1) for who, a, b in drawn]
    shots = shots_of([{"cut_us": cut * MICROSECONDS} for cut in cuts], 100 * MICROSECONDS)
    parts = parts_of(shots, spans, [time * MICROSECONDS for time in look_times])
    seen = [shown for part in parts for shown in part.people]
    assert all(any(shown is each for shown in seen) for each in spans)
    ends = [0, *(part.span.end_us for part in parts)]
    assert [part.span.start_us for part in parts] == ends[:-1], "parts follow each other"
    assert ends[-1] == 100 * MICROSECONDS
    for part in parts:
        assert part.span.start_us <= part.moment_us < shots[part.shot].end_us
        assert shots[part.shot].start_us <= part.span.start_us


def test_a_shot_in_which_nobody_moves_has_one_frame() -> None:
    looks = [second * MICROSECONDS for second in range(0, 60, 2)]
    (part,) = parts_of([Span(0, 60 * MICROSECONDS)], [span(1, 0, 60), span(2, 0, 60)], looks)
    assert part.moment_us == 30 * MICROSECONDS, "the look in the middle"
    assert [shown["person"] for shown in part.people] == [1, 2]


def test_who_leaves_and_returns_gives_two_frames() -> None:
    parts = parts_of([Span(0, 60 * MICROSECONDS)], [span(1, 0, 60), span(2, 0, 10), span(2, 50, 60)])
    assert [part.span.start_us // MICROSECONDS for part in parts] == [0, 50]
    assert [[shown["person"] for shown in part.people] for part in parts] == [[1, 2], [1, 2]]


def test_of_very_many_parts_the_longest_are_shown() -> None:
    lengths = [*range(1, 101)]
    ends = np.cumsum(lengths)
    parts = [Part(0, Span(int(end - length), int(end)), 0) for end, length in zip(ends, lengths, strict=True)]
    shown = longest(parts)
    assert len(shown) == MAX_PARTS
    assert min(part.span.end_us - part.span.start_us for part in shown) == 100 - MAX_PARTS + 1
    assert shown == sorted(shown, key=lambda part: part.span.start_us)


def test_pictures_are_those_of_their_moments(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", num_frames=90, size=(1280, 720))
    framings = [Framing(48, 40, region=Crop(600, 300, 200, 200, 0, 1280)), Framing(region=Crop(2000, 0, 9, 9, 0, 1280))]
    moments = [(round(frame / 30 * MICROSECONDS) + 1, framings) for frame in (3, 40, 77)]
    for number, (width, height, jpeg, squares, reason) in zip(
        (3, 40, 77), pictures_at(str(tmp_path / "v.mp4"), moments), strict=True
    ):
        assert (width, height, reason) == (1280, 720, "")
        frame_HWC = decoded(jpeg)
        assert frame_HWC.shape == (360, MAX_SIDE, 3)
        square_HWC = decoded(squares[0])
        assert square_HWC.shape == (40, 40, 3)
        assert [number_of(image) for image in (frame_HWC, square_HWC)] == pytest.approx([number] * 2, abs=1)
        assert squares[1] is None, "its crop shows nothing of the frame"


# What is said.


def test_times_are_those_that_players_show() -> None:
    assert [clock(round(time_s * MICROSECONDS)) for time_s in (0, 9.96, 59.96, 3599.9, 3723.5)] == [
        "0:00.0",
        "0:10.0",
        "1:00.0",
        "59:59.9",
        "1:02:03.5",
    ]
    view = frame_view(Part(2, Span(0, 10_000_000), 5_000_000), picture(0), video(video_start_s=1.5))
    assert (view.title, view.at) == ("Shot 2, 0:01.5 to 0:11.5", "0:06.5"), "on the file's timeline"
    assert view.alt == "Frame at 0:06.5: nobody is seen"


def test_facts_count_people_nobody_and_who_is_left_out() -> None:
    small = span(3, 20, 30, error=str(FailureKind.TOO_SMALL), reason="small")
    unseen = {"start_us": 40_000_000, "end_us": 50_000_000, "error": "decode_error", "reason": "damaged"}
    facts = video_facts(video(), people(span(1, 0, 10), span(2, 5, 20), small, problems=(unseen,)))
    assert (facts.num_people, facts.nobody_s, facts.left_out_s) == (2, 20.0, 10.0)
    assert facts.left_out == {"too_small": 1}
    assert facts.problems == ("0:40.0 to 0:50.0: damaged",)
    assert facts.needs_attention
    assert not video_facts(video(), people(span(1, 0, 60))).needs_attention
    assert video_facts(video(), people()).needs_attention, "nobody is found"
    assert video_facts(video(error="decode_error", reason="torn"), None).problems == ("it cannot be read: torn",)
    assert "region" in video_facts(video(region_left=0), None).problems[0]


def test_a_crop_is_drawn_with_its_limits_and_what_is_not_used() -> None:
    rows = (span(1, 0, 60, limit_left=50, limit_right=150), span(2, 0, 60, left=300))
    one, other = frame_view(Part(0, Span(0, 60_000_000), 0, rows), picture(2), video()).boxes
    assert one.limits == (50, 150)
    assert one.unused == ((10, 40), (150, 60))
    assert (other.limits, other.unused) == ((), ())
    assert one.color != other.color


@given(st.lists(st.tuples(st.integers(-900, 900), st.integers(-900, 900)), min_size=1, max_size=12))
def test_numbers_are_seen_and_do_not_cover_each_other(corners: list[tuple[int, int]]) -> None:
    rows = tuple(span(who, 0, 60, left=left, top=top) for who, (left, top) in enumerate(corners, start=1))
    view = frame_view(Part(0, Span(0, 60_000_000), 0, rows), picture(len(rows)), video())
    for one, other in combinations(view.boxes, 2):
        apart = abs(one.badge_x - other.badge_x) >= view.badge[0] or abs(one.badge_y - other.badge_y) >= view.badge[1]
        assert apart or one.badge_y == pytest.approx(other.badge_y + view.badge[1], abs=0.01)
    assert all(view.view[0] <= box.badge_x <= view.view[0] + view.view[2] - view.badge[0] for box in view.boxes)


# What a name can do: nothing.


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    row = video(f"{name}.mp4", reason=None)
    rows = (
        span(1, 0, 60, name=name, body=name),
        span(2, 0, 60, left=300, name=name, error="overlap", reason=name, limit_left=320),
    )
    found = people(*rows, problems=({"start_us": 0, "end_us": 9, "error": "decode_error", "reason": name},))
    pictures = [
        (Part(0, Span(0, 60_000_000), 0, rows), picture(2)),
        (Part(1, Span(0, 60_000_000), 0, rows), picture(2, is_seen=False)),
        (Part(2, Span(0, 60_000_000), 0, rows), FramePicture(0, 0, b"", (), name)),
    ]
    page = assert_harmless(video_page(row, found, ARCHIVE, pictures, num_hidden=3, failure=name))
    plain = "".join(c if c.isprintable() else "\ufffd" for c in name)
    assert plain in page.text
    assert "49" not in page.text.replace("{{ 7 * 7 }}", "")
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("image")) == 2
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in page.all("svg"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    entries = [IndexEntry.of(row, found, ARCHIVE, page_name(row, found, Framing()))]
    ((index_name, index),) = index_pages(f"{ARCHIVE}{name}", [*entries, *entries], name)
    assert index_name == "index.html"
    assert plain in assert_harmless(index).text


@given(st.text(), st.text())
def test_any_name_gives_a_safe_and_unique_page(name: str, other: str) -> None:
    one, two = (page_name(video(each), None, Framing()) for each in (name, other))
    assert PAGE_NAME.fullmatch(one)
    assert len(one) < 100
    assert (one == two) == (name == other)
    assert not is_incomplete(one)
    assert is_incomplete(incomplete_name(one))
    assert PAGE_NAME.fullmatch(incomplete_name(one))


def test_a_page_is_another_when_what_it_shows_is() -> None:
    found = people(span(1, 0, 60))
    names = {
        page_name(video(), found, Framing()),
        page_name(video(version="2"), found, Framing()),
        page_name(video(video_start_s=1.0), found, Framing()),
        page_name(video(), found | {"key": "other"}, Framing()),
        page_name(video(), found, Framing(fit="pad")),
        page_name(video(), None, Framing()),
    }
    assert len(names) == 6
    assert page_name(video(), found, Framing()) in names


def test_a_video_without_pictures_says_why() -> None:
    page = assert_harmless(video_page(video(error="decode_error", reason="it is torn"), None, ARCHIVE))
    assert "it cannot be read: it is torn" in page.text
    page = assert_harmless(video_page(video(), people(span(1, 0, 60)), ARCHIVE, failure="the decoder crashed"))
    assert "There are no pictures: the decoder crashed" in page.text
    assert not page.all("svg")


def test_long_sheets_have_several_pages() -> None:
    facts = people(span(1, 0, 60))
    names = [f"{number:05d}.mp4" for number in range(VIDEOS_PER_INDEX + 1)]
    entries = [IndexEntry.of(video(name), facts, ARCHIVE, f"{number:016x}.html") for number, name in enumerate(names)]
    pages = dict(index_pages(ARCHIVE, entries, "all"))
    assert list(pages) == ["index.html", "index-2.html"]
    first, second = (assert_harmless(content) for content in pages.values())
    assert {"href": "index-2.html"} in first.all("a")
    assert {"href": f"{VIDEOS_PER_INDEX:016x}.html"} in second.all("a")
    assert "Look at these first" not in first.text
