"""The pages of a contact sheet as HTML. They need no other file but each other, no network, and run no script.

Names of files and people may be anything: all text is escaped by the templates, and the pages forbid scripts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microaction.labeling.contact import Part, VideoFacts, video_facts
from microaction.labeling.contact_drawing import LABEL_SIZE, frame_view
from microaction.labeling.contact_frames import FramePicture
from microaction.labeling.people import start_us
from microaction.pages import clock, color_of, printable, render
from microaction.video.windows import MICROSECONDS, microseconds

TEMPLATES = "microaction.labeling"
INDEX_PAGE = "index.html"
VIDEOS_PER_INDEX = 1000
MAX_FIRST = 50  # videos that are listed once more, to be looked at first
MAX_PROBLEMS = 3  # of a video in the index; its own page has all


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
    rows = [("file", printable(video["video"])), ("length", _length(video))]
    if facts.num_people is not None:
        rows += [
            ("people", f"{facts.num_people}"),
            ("shots", f"{facts.num_shots}"),
            ("nobody is seen for", f"{facts.nobody_s:.1f} s"),
            ("left out", left_out_text(facts) or "nobody"),
        ]
    shift_us = start_us(video)
    spans = [] if people is None else sorted(people["spans"], key=lambda span: (span["person"], span["start_us"]))
    return render(
        TEMPLATES,
        "contact_video.html.j2",
        label_size=LABEL_SIZE,
        name=_name_in(archive, video["video"]),
        rows=rows,
        problems=[printable(problem) for problem in facts.problems],
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


def index_pages(archive: str, entries: Sequence[IndexEntry], summary: str) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the pages that list all videos. `summary` says in words what was found."""
    num_pages = max(1, -(-len(entries) // VIDEOS_PER_INDEX))
    names = [INDEX_PAGE, *(f"index-{number}.html" for number in range(2, num_pages + 1))]
    first = [entry for entry in entries if entry.facts.needs_attention]
    for number, name in enumerate(names, start=1):
        yield (
            name,
            render(
                TEMPLATES,
                "contact_index.html.j2",
                archive=printable(archive),
                summary=summary,
                page=number,
                num_pages=num_pages,
                pages=list(enumerate(names, start=1)),
                first=first[:MAX_FIRST] if number == 1 and len(entries) > len(first) else [],
                num_first=len(first),
                entries=entries[(number - 1) * VIDEOS_PER_INDEX : number * VIDEOS_PER_INDEX],
            ),
        )


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
