"""The contact sheet of an archive: a page per video (CPU tasks, 1:1), then the pages that list them.

A page's name identifies all that it shows, so a run that was killed draws only the pages that are missing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from microaction import storage
from microaction.distributed.waiting import NodesUnavailableError, pop_first_done
from microaction.errors import FailureKind, reason_of
from microaction.labeling.contact import (
    PAGE_NAME,
    VideoFacts,
    incomplete_name,
    is_incomplete,
    longest,
    page_name,
    parts_of,
    shots_of,
    video_facts,
)
from microaction.labeling.contact_frames import load_pictures
from microaction.labeling.contact_page import INDEX_PAGE, IndexEntry, index_pages, video_page
from microaction.labeling.ledger import LOOKS
from microaction.labeling.looks import LOOKS_US, looks_digest
from microaction.labeling.people import duration_us
from microaction.labeling.plan import plan_looks
from microaction.preprocessing import Preprocessing
from microaction.schema import REGION_COLUMNS
from microaction.video import Framing
from microaction.video.sandbox import Limits

CONTACT_FOLDER = "contact"
TASK_CPUS = 0.9
TASK_RETRIES = 3
VIDEOS_PER_TASK = 8
TASKS_PER_CPU = 2
NO_PROGRESS_S = 1800.0  # of all tasks together: a page takes seconds
CATALOG_COLUMNS = [
    *("video", "version", "duration_s", "video_start_s", "width", "height", "seek_points", "error", "reason"),
    *REGION_COLUMNS,
]
_WORKER_DIED = "it killed the process that draws its page, more than once"


@dataclass(frozen=True)
class ContactVideo:
    """A video of the sheet: its row of the catalog, that of its people if they are known, where its looks are, and its page."""

    video: dict[str, Any]
    people: dict[str, Any] | None
    looks: tuple[tuple[str, str], ...]  # chunk ID, file of the ledger
    page: str


@dataclass(frozen=True)
class PageWriter:
    """The page stage: draws the pages of some videos and writes them. `limits` are those of a video's pictures."""

    out: str
    archive: str
    preprocessing: Preprocessing
    limits: Limits

    def __call__(self, videos: list[ContactVideo]) -> list[str]:
        """Write the pages of videos, by name; return the names of the files. Never raises for what is in a video.

        Raises `StorageError` if a page cannot be written.
        """
        looks = self._looks(videos)
        return [self._write(video, looks.get(video.video["video"], [])) for video in videos]

    def _looks(self, videos: list[ContactVideo]) -> dict[str, list[dict[str, Any]]]:
        """Return the looks at each video."""
        located = [look for video in videos for look in video.looks]
        between = (videos[0].video["video"], videos[-1].video["video"])
        files = sorted({file for _, file in located})
        ids = pa.array([chunk_id for chunk_id, _ in located], pa.string())
        rows = LOOKS.read_rows(self.out, files, ids, between).sort_by("chunk_start_us")
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows.select(["video", "looks"]).to_pylist():
            found.setdefault(row["video"], []).extend(row["looks"])
        return found

    def _write(self, video: ContactVideo, looks: list[dict[str, Any]]) -> str:
        name, failure = video.page, ""
        pictures, num_hidden = [], 0
        if video.people is not None:
            shots = shots_of(looks, duration_us(video.video))
            parts = parts_of(shots, video.people["spans"], [look["time_us"] for look in looks])
            shown = longest(parts)
            num_hidden = len(parts) - len(shown)
            try:
                found = load_pictures(video.video, shown, self.preprocessing, self.limits)
                pictures = list(zip(shown, found, strict=True))
            except Exception as error:  # nothing in one file may cost another its page
                failure = reason_of(error)
                name = incomplete_name(name) if FailureKind.of(error).is_retryable else name
        page = video_page(video.video, video.people, self.archive, pictures, num_hidden=num_hidden, failure=failure)
        storage.write_bytes(storage.join(self.out, CONTACT_FOLDER, name), page)
        return name


@dataclass(frozen=True)
class ContactSource:
    """What a contact sheet shows: the videos of a catalog, their people (`schema.VIDEO_PEOPLE`), and the index of the looks that
    these come from. Rows are made one by one: an archive may have more videos than fit into Python's objects."""

    catalog: pa.Table
    people: pa.Table
    looks: pa.Table

    def facts(self) -> Iterator[VideoFacts]:
        """Yield the numbers of each video of the catalog."""
        for row in range(len(self.catalog)):
            yield video_facts(self._video(row), self._people(row))

    def entries(self, archive: str, framing: Framing) -> Iterator[IndexEntry]:
        """Yield the entry in the index of each video of the catalog."""
        for row in range(len(self.catalog)):
            video, people = self._video(row), self._people(row)
            yield IndexEntry.of(video, people, archive, page_name(video, people, framing))

    def videos(self, rows: Iterable[int], pages: Sequence[str]) -> Iterator[ContactVideo]:
        """Yield some videos of the catalog, with the names of their pages."""
        for row in rows:
            first, end = np.searchsorted(self._plan[1], [row, row + 1]).tolist()
            looks = tuple((id_, self._file_of[id_]) for id_ in self._plan[0][first:end] if id_ in self._file_of)
            yield ContactVideo(self._video(row), self._people(row), looks, pages[row])

    def _video(self, row: int) -> dict[str, Any]:
        video: dict[str, Any] = self.catalog.slice(row, 1).select(CATALOG_COLUMNS).to_pylist()[0]
        return video

    def _people(self, row: int) -> dict[str, Any] | None:
        found = self._row_of.get(self.catalog["video"][row].as_py())
        return None if found is None else self.people.slice(found, 1).to_pylist()[0]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.people["video"].to_pylist())}

    @cached_property
    def _file_of(self) -> dict[str, str]:
        return dict(zip(self.looks["chunk_id"].to_pylist(), self.looks["file"].to_pylist(), strict=True))

    @cached_property
    def _plan(self) -> tuple[list[str], np.ndarray]:
        plan = plan_looks(self.catalog, LOOKS_US, looks_digest())
        return plan["chunk_id"].to_pylist(), plan["video_row"].to_numpy()


def write_contact_sheet(
    writer: PageWriter,
    source: ContactSource,
    summary: str,
    *,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, int]:
    """Write the contact sheet of an archive; needs a running Ray.

    `summary` says in words what was found. Returns the location of the first page, and how many pages lack pictures for transient
    reasons. Raises `StorageError`, and `NodesUnavailableError` if no task makes progress.
    """
    present = _present_pages(writer.out)
    entries = list(source.entries(writer.archive, Framing.of(writer.preprocessing)))
    pages = [entry.page for entry in entries]
    todo = [row for row, page in enumerate(pages) if page not in present]
    done = len(entries) - len(todo)
    on_video(done, len(entries))
    incomplete: set[str] = set()
    for names in _write_pages(writer, source, todo, pages):
        incomplete.update(name for name in names if is_incomplete(name))
        done += len(names)
        on_video(done, len(entries))
    entries = [
        replace(entry, page=name) if (name := incomplete_name(entry.page)) in incomplete else entry for entry in entries
    ]
    written = {entry.page for entry in entries}
    for name, content in index_pages(writer.archive, entries, summary):
        storage.write_bytes(storage.join(writer.out, CONTACT_FOLDER, name), content)
        written.add(name)
    for name in present - written:
        storage.delete_file(storage.join(writer.out, CONTACT_FOLDER, name))
    return storage.join(writer.out, CONTACT_FOLDER, INDEX_PAGE), len(incomplete)


def _write_pages(
    writer: PageWriter, source: ContactSource, todo: Sequence[int], pages: Sequence[str]
) -> Iterator[list[str]]:
    """Run a task per some videos, some at a time; yield the names of the pages that each writes."""
    write = ray.remote(num_cpus=TASK_CPUS, max_retries=TASK_RETRIES)(_write_some)
    max_waiting = TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    remaining = iter(todo)
    waiting: dict[ray.ObjectRef, list[int]] = {}
    while True:
        while len(waiting) < max_waiting and (some := list(islice(remaining, VIDEOS_PER_TASK))):
            waiting[write.remote(writer, list(source.videos(some, pages)))] = some
        if not waiting:
            return
        tasks = list(waiting)
        try:
            names = pop_first_done(tasks, NO_PROGRESS_S, "drawing the contact sheet")
        except (RayTaskError, NodesUnavailableError):
            raise
        except ray.exceptions.RayError:  # more than once one of them killed the process that drew it
            (lost,) = set(waiting) - set(tasks)
            names = [_write_without_pictures(writer, video) for video in source.videos(waiting[lost], pages)]
        (finished,) = set(waiting) - set(tasks)
        del waiting[finished]
        yield names


def _write_some(writer: PageWriter, videos: list[ContactVideo]) -> list[str]:
    return writer(videos)


def _write_without_pictures(writer: PageWriter, video: ContactVideo) -> str:
    page = video_page(video.video, video.people, writer.archive, failure=_WORKER_DIED)
    name = incomplete_name(video.page)
    storage.write_bytes(storage.join(writer.out, CONTACT_FOLDER, name), page)
    return name


def _present_pages(out: str) -> set[str]:
    """Return the names of the pages of an earlier run."""
    try:
        files = storage.list_files(storage.join(out, CONTACT_FOLDER))
        return {name for file in files if PAGE_NAME.fullmatch(name := file.uri.rsplit("/", 1)[-1])}
    except FileNotFoundError:
        return set()
