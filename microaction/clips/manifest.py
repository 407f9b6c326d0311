"""Labeled clips by name: MA-52's list files, with a line "name.mp4 label" per clip, Parquet tables, or spans of videos."""

import codecs
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.clips.instances import read_instances
from microaction.clips.rows import (
    ManifestError,
    SpanName,
    located,
    person_in,
    region_of,
    span_of,
    subject_in,
    subject_of,
)
from microaction.video import Region
from microaction.video.windows import Span

__all__ = ["Clip", "ManifestError", "is_span_list", "read_list", "refuse_named_people", "region_of"]

_LINE = re.compile(r"(.*\S)[ \t]+([0-9]+)")
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Clip:
    """A clip and its action label. `name` is the file's name as listed, `uri` its location, `region` the part of its frames
    that counts (None: whole frames), and `subject` the person in it (None if unknown). `person` says who counts of several
    people, from 1 from left to right (None: not named). `span` is the part of the file's timeline that is the clip, from the
    frame on the screen at its start to the last one that appears before its end (None: the whole file); `name` then names it
    too, as `clips.rows` says."""

    name: str
    uri: str
    label: int
    region: Region | None = None
    subject: str | None = None
    person: int | None = None
    span: Span | None = None

    @property
    def location(self) -> str:
        """What identifies the clip's frames in errors: its URI, with the span and the person of a span."""
        return self.uri if self.span is None else str(SpanName(self.uri, self.span, self.person))


def read_list(list_uri: str, videos: str, num_classes: int | None) -> list[Clip]:
    """Return the clips of a list file, in its order; `videos` is the folder that holds them.

    A list is a text file in MA-52's format, or, if its name ends in .parquet, a table with the columns name and label, and
    optionally region_left, region_top, region_width and region_height (if only a part of the frame counts), person (who counts
    of several people, from 1 from left to right), uri (if the clip is elsewhere) and subject. Without that column the subject
    is the part before the first "_" of the file's name, as in MA-52's `SSSS_BB_NNNN.mp4`. In a text file, blanks or tabs
    separate name and label, and empty lines are skipped. Names are relative to `videos`, absolute paths or URIs; `./a.mp4` is
    `a.mp4`, and `a.mp4#t=1.5,4` the span of it from 1.5 to 4 s.

    Or it is a list of spans, as `read_instances` reads it: each instance is a clip, named by video and span. They are in the
    order of the list, but those of a video lie together.

    Raises `ManifestError` for a missing or empty list, a line that is not "name label", a label outside [0, num_classes) if
    `num_classes` is given, and a clip that is listed twice.
    """
    try:
        data = storage.read_bytes(list_uri)
    except FileNotFoundError:
        raise ManifestError(f"no list file at {list_uri}; it holds a line 'name.mp4 label' per clip") from None
    if is_span_list(data):
        rows = _spans(list_uri, videos)
    else:
        rows = _rows(data, list_uri) if list_uri.endswith(".parquet") else _lines(data, list_uri)
    clips: dict[str, Clip] = {}
    for row in rows:
        clip = _clip(row, videos)
        if num_classes is not None and clip.label >= num_classes:
            raise ManifestError(f"{row.where}: label {row.label} must be below {num_classes}, the number of classes")
        if clip.name in clips:
            raise ManifestError(f"{row.where}: {clip.name} is listed a second time")
        clips[clip.name] = clip
    if not clips:
        raise ManifestError(f"{list_uri} lists no clips")
    return list(clips.values())


def is_span_list(data: bytes) -> bool:
    """Return whether the content of a list file is a list of spans: MMA-52's CSV, or a Parquet table that names videos."""
    if data.startswith(_PARQUET):
        try:
            columns = pq.read_schema(pa.BufferReader(data)).names
        except pa.ArrowInvalid:
            return False  # reading it raises the error
        return "video" in columns and "name" not in columns
    header = data.removeprefix(codecs.BOM_UTF8).split(b"\n", 1)[0]
    return b"video_id" in header.strip().replace(b'"', b"").split(b",")


def _clip(row: "_Row", videos: str) -> Clip:
    try:
        fragment = SpanName.parse(row.name)
    except ValueError as error:
        raise ManifestError(f"{row.where}: {row.name}: {error}") from error
    if fragment is None:
        name, uri = located(row.name, row.uri, videos)
        return Clip(name, uri, row.label, row.region, row.subject, row.person)
    video, uri = located(fragment.video, row.uri, videos)
    person = fragment.person if row.person is None else row.person
    name = str(fragment._replace(video=video, person=person))
    return Clip(name, uri, row.label, row.region, row.subject, person, fragment.span)


def refuse_named_people(clips: Sequence[Clip]) -> None:
    """Raise `ManifestError` for a clip that is listed with a person, where nobody looks for people."""
    named = next((clip for clip in clips if clip.person is not None and clip.region is None), None)
    if named is not None:
        raise ManifestError(
            f"{named.name} is listed with person {named.person}, but people is off: set people to auto, or leave the column "
            "person out"
        )


class _Row(NamedTuple):
    """A clip as it is listed: `where`, and `uri` if it is not in the folder of videos."""

    where: str
    name: str
    label: int
    subject: str | None
    region: Region | None = None
    person: int | None = None
    uri: str | None = None


def _lines(data: bytes, list_uri: str) -> Iterator[_Row]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ManifestError(f"{list_uri} is a text file in UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = data[: error.start].count(b"\n") + 1
        raise ManifestError(
            f"{list_uri}, line {line_number}: it is not text in UTF-8: save the file as UTF-8"
        ) from error
    for line_number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{list_uri}, line {line_number}"
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ManifestError(f"{where}: {line!r} is not 'name.mp4 label'")
        name, label = match.groups()
        if _LINE.fullmatch(name):
            raise ManifestError(f"{where}: {line!r} has more than one number after the name; a clip has one label")
        yield _Row(where, name, int(label), subject_of(name))


def _rows(data: bytes, list_uri: str) -> Iterator[_Row]:
    try:
        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{list_uri} is not a Parquet file: {error}") from error
    for row_number, row in enumerate(rows, start=1):
        where = f"{list_uri}, row {row_number}"
        name, label = row.get("name"), row.get("label")
        if not isinstance(name, str) or not isinstance(label, int) or label < 0:
            raise ManifestError(f"{where}: it must have a name (text) and a label (a whole number)")
        try:
            yield _Row(where, name, label, subject_in(row, name), region_of(row), person_in(row), row.get("uri"))
        except ValueError as error:
            raise ManifestError(f"{where}: {error}") from error


def _spans(list_uri: str, videos: str) -> Iterator[_Row]:
    """Yield the instances of a list of spans as clips. Where a span has several actions, its clips' names say which."""
    for video in read_instances(list_uri, videos):
        actions: dict[SpanName, set[int]] = defaultdict(set)
        named: list[SpanName] = []
        for instance in video.instances:
            try:
                span = span_of(instance.start_s, instance.end_s)
            except ValueError as error:
                raise ManifestError(f"{list_uri}: {video.name}: {error}") from error
            named.append(SpanName(video.name, span, instance.person))
            actions[named[-1]].add(instance.action_id)
        for name, instance in zip(named, video.instances, strict=True):
            full = name if len(actions[name]) == 1 else name._replace(action_id=instance.action_id)
            yield _Row(
                list_uri, str(full), instance.action_id, video.subject, instance.region, instance.person, video.uri
            )
