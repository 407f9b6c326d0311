"""Who is labeled in each video, when, and in which part of the frame. A pure function of its committed looks.

A run keeps it in `_people.parquet`, a row of `schema.VIDEO_PEOPLE` per video. Knows no Ray, no torch.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.errors import FailureKind, UsageError
from microaction.labeling.looks import looks_of
from microaction.people import Look, MoveNet, Person, Tracklet, crop_around, find_people
from microaction.people.crops import is_framed_alike, is_hidden_by
from microaction.people.detector import WEIGHTS_SHA256, Box
from microaction.people.following import MIN_HEIGHT, MIN_HEIGHT_OF_TALLEST, MIN_SEEN_US
from microaction.people.looks import MAX_GAP_US
from microaction.preprocessing import PersonScale
from microaction.schema import VIDEO_PEOPLE, parquet_bytes
from microaction.video.framing import Crop
from microaction.video.windows import MICROSECONDS, Span, merge_spans, microseconds, subtract_spans

if TYPE_CHECKING:
    from microaction.labeling.settings import VideoLabelSettings
    from microaction.models import Checkpoint

VIDEO_PEOPLE_FILE = "_people.parquet"
PEOPLE_FORMAT = "people 3"
CROP_COLUMNS = ("left", "top", "width", "height", "limit_left", "limit_right")
NO_LIMIT = 2**31 - 1  # right of all columns
SHORT_SPAN_US = 10 * MICROSECONDS
MIN_SPANS_OF_PERSON = 3


def duration_us(video: Mapping[str, Any]) -> int:
    """Return the length of a readable video of the catalog, in whole microseconds."""
    return microseconds(video["duration_s"])


def start_us(video: Mapping[str, Any]) -> int:
    """Return when the video track starts on the file's timeline."""
    return microseconds(video["video_start_s"] or 0.0)


class PeopleError(UsageError, ValueError):
    """A list of people cannot be used; the message names the file and the row."""


def people_source(settings: "VideoLabelSettings", checkpoint: "Checkpoint") -> str:
    """Return where a run has its people from: `auto`, `off`, or the location of a list.

    Networks that see skeletons find people in those. Raises `PeopleError` if a list is given for one.
    """
    if not checkpoint.config.needs_skeletons:
        return settings.people
    if settings.people not in ("auto", "off"):
        raise PeopleError(f"{checkpoint.ref.uri} sees the skeletons of people: it has no use for a list of people")
    return "off"


def person_scale(checkpoint: "Checkpoint") -> PersonScale:
    """Return how people lie in the clips of a checkpoint: MA-52's, where that was not measured."""
    return checkpoint.config.preprocessing.person or PersonScale()


def people_provenance(settings: "VideoLabelSettings", checkpoint: "Checkpoint") -> str:
    """Return where a run has its people from, for the metadata of its tables: JSON, with the detector's weights and digest."""
    source = people_source(settings, checkpoint)
    if source != "auto":
        return json.dumps({"source": source})
    weights = {"weights_sha256": WEIGHTS_SHA256, "digest": MoveNet().digest}
    return json.dumps({"source": source, "detector": weights, "scale": person_scale(checkpoint).model_dump()})


def people_key(video: Mapping[str, Any], looks: Iterable[Mapping[str, Any]], scale: PersonScale) -> str:
    """Return what identifies the people of a video: all that `people_of_looks` is a function of.

    `looks` are rows of the ledger's index. A look's own ID holds the detector and the version of the video.
    """
    parts = [[row["chunk_id"], row["error"]] for row in looks]
    content = [PEOPLE_FORMAT, video["video"], duration_us(video), parts, scale.model_dump()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def people_of_looks(
    video: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], scale: PersonScale, key: str
) -> dict[str, Any]:
    """Return the row of `schema.VIDEO_PEOPLE` of a video of the catalog.

    `parts` are its rows of `schema.COMMITTED_LOOKS`, by time; `scale` is how people lie in the clips of the network.
    """
    looks = [look for part in parts for look in looks_of(part["looks"])]
    found = find_people(looks, duration_us(video))
    unseen = merge_spans(
        Span(part["chunk_start_us"], part["chunk_end_us"]) for part in parts if part["error"] is not None
    )
    groups = (
        (found.people, None),
        (found.too_small, FailureKind.TOO_SMALL),
        (found.seen_briefly, FailureKind.SEEN_BRIEFLY),
    )
    spans = [
        _span_row(person, part, neighbors, looks, scale, kind)
        for people, kind in groups
        for person in people
        for tracklet in person.tracklets
        for span in subtract_spans(tracklet.span, unseen)  # where nobody looked, nobody is known
        for part, neighbors in _parts(
            replace(tracklet, span=span), [other for other in found.people if other.number != person.number]
        )
    ]
    problems = [
        {
            "start_us": part["chunk_start_us"],
            "end_us": part["chunk_end_us"],
            "error": part["error"],
            "reason": part["reason"],
        }
        for part in parts
        if part["error"] is not None
    ]
    return {
        "video": video["video"],
        "key": key,
        "num_shots": len(found.shots),
        "spans": spans,
        "problems": [*problems, *_undecodable(parts, looks), *_too_many(looks, duration_us(video))],
    }


def _parts(tracklet: Tracklet, others: Sequence[Person]) -> Iterator[tuple[Tracklet, list[Box]]]:
    """Yield the tracklet, and the boxes of those who are seen meanwhile.

    Where somebody covers the person, or is covered, for a part of it, that part is apart: the rest can be labeled.
    """
    meanwhile = [other for person in others for other in person.tracklets if _overlap(other.span, tracklet.span)]
    occluding = [other.span for other in meanwhile if is_hidden_by(tracklet.box, other.box)]
    inside = {
        time_us for span in occluding for time_us in span if tracklet.span.start_us < time_us < tracklet.span.end_us
    }
    for span in (Span(*borders) for borders in pairwise(sorted({*tracklet.span, *inside}))):
        yield replace(tracklet, span=span), [other.box for other in meanwhile if _overlap(other.span, span)]


def _overlap(one: Span, other: Span) -> bool:
    return one.start_us < other.end_us and other.start_us < one.end_us


def _span_row(
    person: Person,
    tracklet: Tracklet,
    neighbors: Sequence[Box],
    looks: Sequence[Look],
    scale: PersonScale,
    kind: FailureKind | None,
) -> dict[str, Any]:
    frame_width, frame_height = looks[0].width, looks[0].height
    cut = crop_around(tracklet, neighbors, frame_width, scale)
    left, top, width, height, first_x, end_x = cut.crop
    if not neighbors and is_framed_alike(cut.crop, frame_width, frame_height):
        left, top, width, height, first_x, end_x = 0, 0, frame_width, frame_height, 0, frame_width
    reason = None
    if kind is FailureKind.TOO_SMALL:
        reason = (
            f"the person is {tracklet.height:.0f} pixels high, less than {MIN_HEIGHT:.0%} of the frame's {frame_height} or "
            f"{MIN_HEIGHT_OF_TALLEST:.0%} of the tallest person's in the shot"
        )
    elif kind is FailureKind.SEEN_BRIEFLY:
        reason = f"the person is seen for {person.seen_us / MICROSECONDS:.1f} s in all, less than {MIN_SEEN_US // MICROSECONDS} s"
    elif cut.is_occluded:
        kind = FailureKind.OVERLAP
        reason = "the person covers another one or is covered, so that no crop shows one of them alone"
    return {
        "person": person.number,
        "name": None,
        "shot": tracklet.shot,
        "start_us": tracklet.span.start_us,
        "end_us": tracklet.span.end_us,
        "left": left,
        "top": top,
        "width": width,
        "height": height,
        "limit_left": first_x or None,
        "limit_right": end_x if end_x < frame_width else None,
        "body": str(cut.body),
        "height_px": cut.height_px,
        "score": tracklet.score,
        "num_looks": tracklet.num_looks,
        "error": kind and str(kind),
        "reason": reason,
    }


def _undecodable(parts: Sequence[Mapping[str, Any]], looks: Sequence[Look]) -> Iterator[dict[str, Any]]:
    """Yield the spans of which no frame could be decoded: every 12 s would have a look."""
    cells = {look.time_us // MAX_GAP_US for look in looks}
    dark = merge_spans(
        Span(cell * MAX_GAP_US, min((cell + 1) * MAX_GAP_US, part["chunk_end_us"]))
        for part in parts
        if part["error"] is None
        for cell in range(part["chunk_start_us"] // MAX_GAP_US, -(-part["chunk_end_us"] // MAX_GAP_US))
        if cell not in cells
    )
    for start, end in dark:
        reason = "no frame could be decoded to look for people"
        yield {"start_us": start, "end_us": end, "error": str(FailureKind.DECODE_ERROR), "reason": reason}


def _too_many(looks: Sequence[Look], end_us: int) -> Iterator[dict[str, Any]]:
    """Yield the spans in which there may be more people than the detector looks for."""
    most = MoveNet().max_people
    ends_us = [*(look.time_us for look in looks[1:]), end_us]
    crowded = merge_spans(
        Span(look.time_us, next_us) for look, next_us in zip(looks, ends_us, strict=False) if len(look.people) >= most
    )
    for start, end in crowded:
        reason = f"{most} people were found, as many as are looked for: there may be more"
        yield {"start_us": start, "end_us": end, "error": str(FailureKind.TOO_MANY_PEOPLE), "reason": reason}


def write_video_people(out: str, people: pa.Table) -> None:
    """Write the people of a run's videos."""
    storage.write_bytes(storage.join(out, VIDEO_PEOPLE_FILE), parquet_bytes(people, compression="zstd"))


def read_video_people(out: str) -> pa.Table | None:
    """Return the people of a run's videos; None if there are none, or those of another format."""
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(out, VIDEO_PEOPLE_FILE))))
        return table.select(VIDEO_PEOPLE.names).cast(VIDEO_PEOPLE)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, KeyError):
        return None


def labeled_spans(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the spans that are labeled of a row of `schema.VIDEO_PEOPLE`, as rows of `schema.CROPS`, by person and time."""
    names = ("person", "start_us", "end_us", *CROP_COLUMNS)
    spans = [{name: span[name] for name in names} for span in found["spans"] if span["error"] is None]
    return sorted(spans, key=lambda span: (span["person"], span["start_us"]))


def crop_of(row: Mapping[str, Any]) -> Crop:
    """Return the crop in a row's columns of `schema.CROPS`."""
    left, top, width, height = (row[name] for name in ("left", "top", "width", "height"))
    limit_right = NO_LIMIT if row["limit_right"] is None else row["limit_right"]
    return Crop(left, top, width, height, row["limit_left"] or 0, limit_right)


def people_warnings(people: pa.Table) -> Iterator[str]:
    """Yield what users of labels of these people should know, a sentence each."""
    restless = [row["video"] for row in people.to_pylist() if _is_restless(row)]
    if restless:
        videos = f"1 video ({restless[0]})" if len(restless) == 1 else f"{len(restless)} videos, such as {restless[0]},"
        yield (
            f"in {videos} people are mostly shown for less than {SHORT_SPAN_US // MICROSECONDS} s at a time: where the camera "
            "moves or cuts so often, crops and numbers of people deserve a look (`microaction people`)"
        )


def _is_restless(found: Mapping[str, Any]) -> bool:
    """Return whether half of the spans of a video are short, and people have several: cuts, or a camera or people that move."""
    spans = labeled_spans(found)
    lengths_us = [span["end_us"] - span["start_us"] for span in spans]
    num_people = len({span["person"] for span in spans})
    return len(spans) >= max(MIN_SPANS_OF_PERSON * num_people, 1) and bool(np.median(lengths_us) < SHORT_SPAN_US)
