"""Labeled clips by name: MA-52's list files, with a line "name.mp4 label" per clip, or Parquet tables of the same."""

import codecs
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.errors import UsageError
from microaction.schema import REGION_COLUMNS
from microaction.video import Region

_LINE = re.compile(r"(.*\S)[ \t]+([0-9]+)")


class ManifestError(UsageError, ValueError):
    """A list file cannot be read; the message names the file and the line."""


@dataclass(frozen=True)
class Clip:
    """A clip and its action label. `name` is the file's name as listed, `uri` its location, `region` the part of its frames
    that counts (None: whole frames), and `subject` the person in it (None if unknown). `person` says who counts of several
    people, from 1 from left to right (None: not named)."""

    name: str
    uri: str
    label: int
    region: Region | None = None
    subject: str | None = None
    person: int | None = None


def read_list(list_uri: str, videos: str, num_classes: int | None) -> list[Clip]:
    """Return the clips of a list file, in its order; `videos` is the folder that holds them.

    A list is a text file in MA-52's format, or, if its name ends in .parquet, a table with the columns name and label, and
    optionally region_left, region_top, region_width and region_height (if only a part of the frame counts), person (who counts
    of several people, from 1 from left to right), uri (if the clip is elsewhere) and subject. Without that column the subject
    is the part before the first "_" of the file's name, as in MA-52's `SSSS_BB_NNNN.mp4`. In a text file, blanks or tabs
    separate name and label, and empty lines are skipped. Names are relative to `videos`, absolute paths or URIs; `./a.mp4` is
    `a.mp4`. Raises `ManifestError` for a missing or empty list, a line that is not "name label", a label outside
    [0, num_classes) if `num_classes` is given, and a clip that is listed twice.
    """
    try:
        data = storage.read_bytes(list_uri)
    except FileNotFoundError:
        raise ManifestError(f"no list file at {list_uri}; it holds a line 'name.mp4 label' per clip") from None
    clips: dict[str, Clip] = {}
    for row in _rows(data, list_uri) if list_uri.endswith(".parquet") else _lines(data, list_uri):
        name, uri = located(row.name, row.uri, videos)
        if num_classes is not None and row.label >= num_classes:
            raise ManifestError(f"{row.where}: label {row.label} must be below {num_classes}, the number of classes")
        if name in clips:
            raise ManifestError(f"{row.where}: {name} is listed a second time")
        clips[name] = Clip(name, uri, row.label, row.region, row.subject, row.person)
    if not clips:
        raise ManifestError(f"{list_uri} lists no clips")
    return list(clips.values())


def refuse_named_people(clips: Sequence[Clip]) -> None:
    """Raise `ManifestError` for a clip that is listed with a person, where nobody looks for people."""
    named = next((clip for clip in clips if clip.person is not None and clip.region is None), None)
    if named is not None:
        raise ManifestError(
            f"{named.name} is listed with person {named.person}, but people is off: set people to auto, or leave the column "
            "person out"
        )


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
