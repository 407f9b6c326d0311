"""Lists of people: what was found as a table that users edit, and what such a table says. Knows no Ray, no torch."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.clips.manifest import region_of
from microaction.errors import FailureKind
from microaction.labeling.people import CROP_COLUMNS, PEOPLE_FORMAT, PeopleError, crop_of, duration_us, start_us
from microaction.schema import OPTIONAL_PEOPLE_COLUMNS, PEOPLE_LIST, VIDEO_PEOPLE
from microaction.video.windows import MICROSECONDS, Span, merge_spans, subtract_spans

FACTS = ("body", "height_px", "score", "num_looks", "error", "reason")
MAX_SIDE = 100_000  # pixels


def list_of_people(people: pa.Table, catalog: pa.Table) -> pa.Table:
    """Return the people of videos of a catalog as a table of `schema.PEOPLE_LIST`."""
    columns = ("video", "version", "video_start_s")
    of_video = {row["video"]: row for row in catalog.select(columns).to_pylist()}
    rows = []
    for found in people.to_pylist():
        video = of_video[found["video"]]
        shift_us = start_us(video)
        for span in sorted(found["spans"], key=lambda span: (span["person"], span["start_us"])):
            times = {f"{name}_s": (span[f"{name}_us"] + shift_us) / MICROSECONDS for name in ("start", "end")}
            known = {"video": video["video"], "video_version": video["version"]} | times
            rows.append({name: known.get(name, span.get(name)) for name in PEOPLE_LIST.names})
    return pa.Table.from_pylist(rows, schema=PEOPLE_LIST)


def read_people_list(uri: str) -> pa.Table:
    """Return the table of `schema.PEOPLE_LIST` in a Parquet file. Raises `PeopleError`."""
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except FileNotFoundError as error:
        raise PeopleError(f"{error}; `microaction people ARCHIVE OUT` makes a list of people") from error
    except pa.ArrowInvalid as error:
        raise PeopleError(f"{uri} is not a Parquet file: {error}") from error
    for name in OPTIONAL_PEOPLE_COLUMNS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), PEOPLE_LIST.field(name).type))
    missing = [name for name in PEOPLE_LIST.names if name not in table.column_names]
    if missing:
        raise PeopleError(f"{uri} is not a list of people: it has no column {', '.join(missing)}")
    try:
        return table.select(PEOPLE_LIST.names).cast(PEOPLE_LIST)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise PeopleError(f"{uri} is not a list of people: {error}") from error


def people_of_list(listed: pa.Table, uri: str, catalog: pa.Table, *, is_of_archive: bool = True) -> pa.Table:
    """Return what a list of people says of the videos of a catalog, a table of `schema.VIDEO_PEOPLE`.

    Videos that are not listed have nobody; those with a region are labeled in it, and may not be listed. Raises `PeopleError` for
    a video that the catalog lacks, unless `is_of_archive` is false, or has in another version, and for spans that cannot be
    labeled.
    """
    of_video = {row["video"]: row for row in catalog.to_pylist() if row["error"] is None}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name, video in of_video.items() if region_of(video) is None}
    for number, row in enumerate(listed.to_pylist(), start=1):
        where = f"{uri}, row {number}"
        video = of_video.get(row["video"])
        if video is None and not is_of_archive:
            continue  # a catalog of one of the list's videos
        if video is None:
            raise PeopleError(f"{where}: the archive has no readable video {row['video']}")
        if row["video_version"] not in (None, video["version"]):
            raise PeopleError(f"{where}: {row['video']} has changed since its people were found: find them again")
        if row["video"] not in rows:
            raise PeopleError(
                f"{where}: the catalog gives a region of {row['video']}, which is labeled: leave the row out"
            )
        rows[row["video"]].append(_listed_span(row, video, where))
    people = []
    for name, spans in rows.items():
        spans.sort(key=lambda span: (span["person"], span["start_us"]))
        _check_disjoint(name, spans, uri)
        content = json.dumps([PEOPLE_FORMAT, uri, spans], default=str)
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        num_shots = 1 + max((span["shot"] or 0 for span in spans), default=0)
        listed_spans = merge_spans(Span(span["start_us"], span["end_us"]) for span in spans)
        problems = [
            {"start_us": start, "end_us": end, "error": str(FailureKind.NOBODY_SEEN), "reason": "nobody is listed"}
            for start, end in subtract_spans(Span(0, duration_us(of_video[name])), listed_spans)
        ]
        people.append({"video": name, "key": key, "num_shots": num_shots, "spans": spans, "problems": problems})
    return pa.Table.from_pylist(people, schema=VIDEO_PEOPLE).sort_by("video")


def _listed_span(row: Mapping[str, Any], video: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a row of a list as a span of `schema.VIDEO_PEOPLE`. Raises `PeopleError`."""
    shift_us, end_of_video_us = start_us(video), duration_us(video)
    end_s = min(row["end_s"], (shift_us + end_of_video_us) / MICROSECONDS)  # inf: to the end
    is_span = math.isfinite(row["start_s"]) and not math.isnan(end_s)
    times = {
        f"{name}_us": round(time_s * MICROSECONDS) - shift_us if is_span else -1
        for name, time_s in (("start", row["start_s"]), ("end", end_s))
    }
    if not 0 <= times["start_us"] < times["end_us"]:
        raise PeopleError(f"{where}: {row['start_s']:g} s to {row['end_s']:g} s is not a span of {row['video']}")
    if row["person"] < 1:
        raise PeopleError(f"{where}: person ({row['person']}) must be at least 1")
    if not (0 < row["width"] <= MAX_SIDE and 0 < row["height"] <= MAX_SIDE):
        raise PeopleError(f"{where}: width ({row['width']}) and height ({row['height']}) must be > 0 and ≤ {MAX_SIDE}")
    crop = crop_of(row)
    first_x, end_x = max(crop.left, crop.first_x, 0), min(crop.left + crop.width, crop.end_x, video["width"])
    if first_x >= end_x or row["top"] >= video["height"] or row["top"] + row["height"] <= 0:
        raise PeopleError(
            f"{where}: the crop of {row['width']}×{row['height']} pixels at ({row['left']}, {row['top']}), of which the columns "
            f"{crop.first_x} to {min(crop.end_x, video['width'])} count, shows nothing of the "
            f"frame of {video['width']}×{video['height']}"
        )
    return {name: row[name] for name in ("person", "name", "shot", *CROP_COLUMNS, *FACTS)} | times


def _check_disjoint(video: str, spans: Sequence[Mapping[str, Any]], uri: str) -> None:
    """Raise `PeopleError` if one person is at two places at once. `spans` are by person and time."""
    for person, of_person in groupby(spans, key=lambda span: span["person"]):
        for one, other in pairwise(of_person):
            if other["start_us"] < one["end_us"]:
                times = ", ".join(
                    f"{span['start_us'] / MICROSECONDS:g} to {span['end_us'] / MICROSECONDS:g} s"
                    for span in (one, other)
                )
                raise PeopleError(
                    f"{uri}: person {person} of {video} has spans that overlap ({times}): shorten one of them"
                )
