"""Untrimmed videos with the actions in them, each from when to when: MMA-52's annotation files, or Parquet tables of spans.

Source of the format: MMA-52's train.csv and val.csv, of 2024 and later.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.clips.rows import ManifestError, located, person_in, region_of, subject_in, subject_of
from microaction.taxonomy import ACTIONS
from microaction.video import Region, probe

CSV_COLUMNS = ("video_id", "start_frame", "end_frame", "class", "total_frames")
PARQUET_COLUMNS = ("video", "start_s", "end_s", "action")
DECIMALS = 4  # of the seconds in the official annotation files
_ID_OF_ACTION = {name: number for number, name in enumerate(ACTIONS)}


class Instance(NamedTuple):
    """One action over [start_s, end_s) of a video, of one person where several are distinguished, in the part of the frames that
    counts (None: whole frames)."""

    action_id: int
    start_s: float
    end_s: float
    person: int | None = None
    region: Region | None = None


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video and all its instances, in the order of the list. `name` is the video's as listed, `uri` its location.

    `duration_s` is None where the list does not say it, `subject` where nobody knows who is in it.
    """

    name: str
    uri: str
    instances: tuple[Instance, ...]
    duration_s: float | None = None
    subject: str | None = None


def read_instances(list_uri: str, videos: str) -> list[AnnotatedVideo]:
    """Return the videos of a list, each once, in the order in which they are first listed; `videos` is the folder of their files.

    A list is a CSV file in MMA-52's format, with the columns video_id (`videos/VIDEO_ID.mp4`), start_frame, end_frame, class and
    total_frames and, since 2025, fps; without fps the frame rate is read from each video's header. Or, if its name ends in
    .parquet, a table with the columns video (its file's name), start_s, end_s and action (a name or a number), and optionally
    person, subject, action_id and the columns of a region, such as the events that `microaction label` writes. Without a
    column of subjects the subject is what the video's name begins with, before the first "_". Seconds of MMA-52's files are
    rounded to 0.0001 s, as in its official annotations. Raises `ManifestError` for a missing or empty list, missing columns,
    and a row that is no instance.
    """
    try:
        data = storage.read_bytes(list_uri)
    except FileNotFoundError:
        raise ManifestError(
            f"no list of instances at {list_uri}; it is MMA-52's CSV file or a Parquet table with {', '.join(PARQUET_COLUMNS)}"
        ) from None
    rows = _spans(data, list_uri, videos) if list_uri.endswith(".parquet") else _frames(data, list_uri, videos)
    found: dict[str, tuple[_Row, list[Instance]]] = {}
    for row in rows:
        first, instances = found.setdefault(row.name, (row, []))
        if first.duration_s != row.duration_s:
            raise ManifestError(
                f"{row.where}: {row.name} lasts {row.duration_s} s here, and {first.duration_s} s before"
            )
        if first.subject != row.subject:
            raise ManifestError(f"{row.where}: {row.name} has subject {row.subject} here, and {first.subject} before")
        instances.append(row.instance)
    if not found:
        raise ManifestError(f"{list_uri} lists no instances")
    return [
        AnnotatedVideo(name, row.uri, tuple(instances), row.duration_s, row.subject)
        for name, (row, instances) in found.items()
    ]


def refuse_several_people(videos: Iterable[AnnotatedVideo]) -> None:
    """Raise `ManifestError` for a video that is listed with several people or regions: a detector sees one of them."""
    for video in videos:
        for what, values in (
            ("people", {instance.person for instance in video.instances}),
            ("regions", {instance.region for instance in video.instances}),
        ):
            if len(values) > 1:
                raise ManifestError(
                    f"{video.name} lists several {what}: detectors take videos that show one person; `microaction pack` with "
                    "people=auto cuts them"
                )


class _Row(NamedTuple):
    where: str
    name: str
    uri: str
    instance: Instance
    duration_s: float | None
    subject: str | None


def _frames(data: bytes, list_uri: str, videos: str) -> Iterator[_Row]:
    """Yield the rows of a CSV file in MMA-52's format."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{list_uri} is not a CSV file in UTF-8: {error}") from error
    _check_columns(columns, CSV_COLUMNS, list_uri)
    rates: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{list_uri}, line {number}"
        try:
            name, uri = located(f"{row['video_id']}.mp4", None, videos)
            if "fps" not in row and uri not in rates:
                rates[uri] = float(probe(uri).fps)
            fps = rates[uri] if "fps" not in row else float(row["fps"])
            if not 0 < fps < math.inf:
                raise ValueError(f"fps ({row['fps']}) must be above 0")
            start_s, end_s, duration_s = (
                round(int(row[column]) / fps, DECIMALS) for column in ("start_frame", "end_frame", "total_frames")
            )
            instance = _instance(int(row["class"]), start_s, end_s, None)
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{where}: {error}") from error
        yield _Row(where, name, uri, instance, duration_s, subject_of(name))


def _spans(data: bytes, list_uri: str, videos: str) -> Iterator[_Row]:
    """Yield the rows of a Parquet table of spans."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{list_uri} is not a Parquet file: {error}") from error
    _check_columns(table.column_names, PARQUET_COLUMNS, list_uri)
    for number, row in enumerate(table.to_pylist(), start=1):
        where = f"{list_uri}, row {number}"
        try:
            if not isinstance(row["video"], str):
                raise ValueError("it must name a video")
            name, uri = located(row["video"], row.get("uri"), videos)
            instance = _instance(_action_in(row), row["start_s"], row["end_s"], person_in(row), region_of(row))
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{where}: {error}") from error
        yield _Row(where, name, uri, instance, None, subject_in(row, name))


def _check_columns(columns: Iterable[str], needed: tuple[str, ...], list_uri: str) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ManifestError(
            f"{list_uri} lacks the columns {', '.join(missing)}; a list of instances has {', '.join(needed)}"
        )


def _action_in(row: Mapping[str, Any]) -> int:
    """Return the number of a row's action. Raises `ValueError` for a name that is none."""
    action = row["action"]
    if isinstance(action, str):
        if action not in _ID_OF_ACTION:
            raise ValueError(f"there is no action {action!r}; names are those of microaction.taxonomy.ACTIONS")
        return _ID_OF_ACTION[action]
    if not isinstance(action, int):
        raise ValueError(f"action ({action!r}) must be a name or a number")
    return action


def _instance(
    action_id: int, start_s: float, end_s: float, person: int | None, region: Region | None = None
) -> Instance:
    if not 0 <= action_id < len(ACTIONS):
        raise ValueError(f"action {action_id} must be in 0..{len(ACTIONS) - 1}")
    if not 0 <= start_s < end_s < math.inf:
        raise ValueError(f"it must start before it ends, at 0 s or later, not last from {start_s} to {end_s} s")
    return Instance(action_id, start_s, end_s, person, region)
