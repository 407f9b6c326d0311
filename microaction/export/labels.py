"""Published labels: whole tables, or one video after the other in bounded memory. Does not use Ray.

A publication has some files, each with some videos; the files of one name in all tables are about the same videos. So one of each
is held at a time, however large the archive is.
"""

import difflib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microaction import storage
from microaction.errors import UsageError
from microaction.labeling.published import TABLES_FOLDER, read_publication
from microaction.labeling.record import read_record
from microaction.schema import PUBLIC_TABLES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WHOLE_FRAME = 0  # the person of videos in which people were not looked for


class LabelsError(UsageError, ValueError):
    """An output has no labels, or not those that were asked for."""


class Event(NamedTuple):
    """A row of `schema.EVENTS`, without the video and provenance; seconds on the file's timeline."""

    person: int
    action_id: int
    start_s: float
    end_s: float
    probability: float
    peak_probability: float


@dataclass(frozen=True)
class VideoLabels:
    """All labels of a video.

    `uri` is the video's location, and `name` its path in the archive. `facts` is its row of `schema.VIDEOS`, `people` and
    `failures` are its rows of `schema.PEOPLE` and `schema.FAILURES`, `events` are by start, person and action. `part` names the
    files that hold them.
    """

    uri: str
    name: str
    facts: Mapping[str, Any]
    people: tuple[Mapping[str, Any], ...]
    events: tuple[Event, ...]
    failures: tuple[Mapping[str, Any], ...]
    part: str

    @property
    def persons(self) -> tuple[int, ...]:
        """The numbers of the people who are labeled or have events, ascending."""
        return tuple(sorted({row["person"] for row in self.people} | {event.person for event in self.events}))

    def person_name(self, person: int) -> str:
        """Return what a person is called: the name in the list of people, "person 2", or "everybody" for the whole frame."""
        for row in self.people:
            if row["person"] == person and row["name"]:
                return str(row["name"])
        return "everybody" if person == WHOLE_FRAME else f"person {person}"


@dataclass(frozen=True)
class Selection:
    """Which labels are wanted: by default, all.

    `videos` are locations, paths in the archive, or patterns of them such as `*_L.mp4`; `persons` are numbers or names.
    `min_score` is compared with events' `probability`.
    """

    videos: Sequence[str] = ()
    persons: Sequence[str] = ()
    min_score: float = 0.0

    def has_video(self, labels: "Labels", uri: str) -> bool:
        """Return whether a video is wanted."""
        names = (uri, labels.name_of(uri))
        return not self.videos or any(
            name == each or fnmatch.fnmatchcase(name, each) for each in self.videos for name in names
        )

    def of(self, video: VideoLabels) -> VideoLabels:
        """Return the wanted part of a video's labels."""
        persons = {
            person
            for person in video.persons
            if not self.persons or str(person) in self.persons or video.person_name(person) in self.persons
        }
        return replace(
            video,
            people=tuple(row for row in video.people if row["person"] in persons),
            events=tuple(
                event for event in video.events if event.person in persons and event.probability >= self.min_score
            ),
            failures=tuple(
                row for row in video.failures if not self.persons or row["person"] is None or row["person"] in persons
            ),
        )


class Labels:
    """The published labels of an output folder, as they are when it is opened.

    `out` is the folder, `archive` the location of the videos, and `model` that of the checkpoint. Tables are read when they are
    used: `events`, `people`, `videos`, `failures`, `activity` (detectors) and `windows` (classifiers) are pandas tables, `arrow`
    gives the same as Arrow tables. Raises `LabelsError` if the folder has no labels.
    """

    def __init__(self, out: str) -> None:
        self.out = storage.absolute(out)
        record, publication = read_record(self.out), read_publication(self.out)
        if record is None or publication is None:
            raise LabelsError(f"{self.out} has no labels: microaction label ARCHIVE {out} --model … makes them")
        self.archive = str(record["identity"]["archive"])
        self.model = str(record["runs"][0]["model"])
        self.totals: Mapping[str, Any] = publication["totals"]
        # Not the folders that the publication names: an output may have been moved or copied since.
        self._folder = storage.join(self.out, TABLES_FOLDER, self.totals["version"])
        self._latest_activity: tuple[str, pa.Table] | None = None

    events = property(lambda self: self.pandas("events"), doc="Events, a row for each (`schema.EVENTS`).")
    people = property(lambda self: self.pandas("people"), doc="People, a row for each of a video (`schema.PEOPLE`).")
    videos = property(lambda self: self.pandas("videos"), doc="Videos, a row for each (`schema.VIDEOS`).")
    failures = property(lambda self: self.pandas("failures"), doc="Spans without labels (`schema.FAILURES`).")
    windows = property(lambda self: self.pandas("windows"), doc="Windows of a classifier (`schema.WINDOWS`).")
    activity = property(
        lambda self: self.pandas("activity"), doc="Dense probabilities of a detector (`schema.ACTIVITY`)."
    )

    def pandas(self, table: str, video: str | None = None) -> "pd.DataFrame":
        """Return a table (a name of `schema.PUBLIC_TABLES`), or what it has of one video, by location or path in the archive."""
        frame: pd.DataFrame = self.arrow(table, video).to_pandas()
        return frame

    def arrow(self, table: str, video: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table as `pandas` does, as an Arrow table; `columns` are those to read. Raises `LabelsError` for a video
        that is not in the archive."""
        if video is None:
            return self._read(table, self.parts, columns)
        uri, part = self._find(video)
        return self._read(table, [part], columns, pc.field("video") == uri)

    def name_of(self, uri: str) -> str:
        """Return a video's path in the archive."""
        return uri.removeprefix(self.archive.rstrip("/") + "/")

    def video(self, name: str) -> VideoLabels:
        """Return the labels of a video, by location or path in the archive. Raises `LabelsError` if there is none."""
        uri, part = self._find(name)
        (found,) = self._of_part(part, [uri])
        return found

    def each_video(self, selection: Selection | None = None) -> Iterator[VideoLabels]:
        """Yield the labels of every wanted video, by part and location. Raises `LabelsError` if none is wanted."""
        wanted = selection or Selection()
        num_found = 0
        for part in self.parts:
            uris = [uri for uri in self._uris_of[part] if wanted.has_video(self, uri)]
            num_found += len(uris)
            for video in self._of_part(part, uris):
                yield wanted.of(video)
        if wanted.videos and not num_found:
            raise LabelsError(self._unknown(wanted.videos[0]))

    def activity_of(self, video: VideoLabels, person: int) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield the dense probabilities of a person, at most a minute at a time: start and length of a step in seconds, and uint8
        [steps, actions], probability times 255. Nothing for classifiers."""
        table = self._activity_of(video.part)
        wanted = pc.and_(pc.equal(table["video"], video.uri), pc.equal(table["person"], person))
        for row in table.filter(wanted).sort_by("start_s").to_batches():
            facts = zip(*(row.column(name).to_pylist() for name in ("start_s", "step_s", "num_steps")), strict=True)
            for number, (start_s, step_s, num_steps) in enumerate(facts):
                values = row.column("activity")[number].values.to_numpy(zero_copy_only=False)
                yield start_s, step_s, values.reshape(num_steps, -1)

    def plot_timeline(self, video: str, person: int | None = None, min_score: float = 0.0) -> "Figure":
        """Return a matplotlib figure of a video's events over time: a lane per person and action, fainter where less probable.

        `video`: location or path in the archive. `person`: one of them; None: all. Raises `LabelsError` for an unknown video.
        """
        from microaction.export.timeline_plot import timeline_figure

        persons = () if person is None else (str(person),)
        return timeline_figure(Selection(persons=persons, min_score=min_score).of(self.video(video)))

    @cached_property
    def parts(self) -> list[str]:
        """The names of the files of each table, ascending."""
        files = storage.list_files(storage.join(self._folder, "videos"))
        return sorted(file.uri.rsplit("/", 1)[-1] for file in files)

    def _activity_of(self, part: str) -> pa.Table:
        """Return the dense probabilities of a part: some megabytes, kept for the next of its videos."""
        if self._latest_activity is None or self._latest_activity[0] != part:
            columns = ["video", "person", "start_s", "step_s", "num_steps", "activity"]
            self._latest_activity = (part, self._read("activity", [part], columns))
        return self._latest_activity[1]

    def _find(self, name: str) -> tuple[str, str]:
        """Return a video's location and the part that holds it."""
        for part in self.parts:
            for uri in self._uris_of[part]:
                if name in (uri, self.name_of(uri)):
                    return uri, part
        raise LabelsError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        known = [self.name_of(uri) for uris in self._uris_of.values() for uri in uris]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
        hint = f": is it {' or '.join(map(repr, close))}?" if close else ""
        return f"no video {name!r} in the labels of {self.out}{hint}"

    @cached_property
    def _uris_of(self) -> dict[str, list[str]]:
        """The locations of the videos of each part."""
        return {part: self._read("videos", [part], ["video"])["video"].to_pylist() for part in self.parts}

    def _of_part(self, part: str, uris: Sequence[str]) -> Iterator[VideoLabels]:
        if not uris:
            return
        wanted = pc.field("video").isin(list(uris))
        rows = {name: self._rows(name, part, wanted) for name in ("videos", "people", "failures")}
        events = self._read("events", [part], ["video", *Event._fields], wanted)
        events = events.sort_by([(name, "ascending") for name in ("video", "start_s", "person", "action_id")])
        first_of = {video: first for video, first, _ in _runs(events["video"])}
        last_of = {video: last for video, _, last in _runs(events["video"])}
        for (facts,) in rows["videos"].values():
            uri = facts["video"]
            some = events.slice(first_of.get(uri, 0), last_of.get(uri, 0) - first_of.get(uri, 0))
            yield VideoLabels(
                uri,
                self.name_of(uri),
                facts,
                tuple(rows["people"].get(uri, ())),
                tuple(map(Event._make, zip(*(some[name].to_pylist() for name in Event._fields), strict=True))),
                tuple(rows["failures"].get(uri, ())),
                part,
            )

    def _rows(self, table: str, part: str, wanted: pc.Expression) -> dict[str, list[dict[str, Any]]]:
        by_video: dict[str, list[dict[str, Any]]] = {}
        for row in self._read(table, [part], None, wanted).to_pylist():
            by_video.setdefault(row["video"], []).append(row)
        return by_video

    def _read(
        self, table: str, parts: Sequence[str], columns: Sequence[str] | None, wanted: pc.Expression | None = None
    ) -> pa.Table:
        if table not in PUBLIC_TABLES:
            raise LabelsError(f"no table {table!r}: there are {', '.join(PUBLIC_TABLES)}")
        filesystem, folder = storage.open_filesystem(storage.join(self._folder, table))
        names = None if columns is None else list(columns)
        tables = [
            pq.read_table(f"{folder}/{part}", columns=names, filters=wanted, filesystem=filesystem, partitioning=None)
            for part in parts
        ]
        return pa.concat_tables(tables) if tables else PUBLIC_TABLES[table].empty_table()


def read_labels(out: str) -> Labels:
    """Return the labels that `microaction label` published in a folder, a path or URI. Raises `LabelsError` if it has none."""
    return Labels(str(out))


def _runs(column: pa.ChunkedArray) -> Iterator[tuple[Any, int, int]]:
    """Yield each value of a sorted column, and its first row and the row after its last."""
    encoded = pc.run_end_encode(column.combine_chunks()) if len(column) else None
    first = 0
    if encoded is not None:
        for value, last in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
            yield value, first, last
            first = last
