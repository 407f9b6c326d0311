"""The contact sheet of an archive: a page per video (CPU tasks, 1:1), then the pages that list them.

A page's name identifies all that it shows, so a run that was killed draws only the pages that are missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from microaction import storage
from microaction.distributed.waiting import NodesUnavailableError, pop_first_done
from microaction.errors import FailureKind, reason_of
from microaction.labeling.contact import INCOMPLETE, PAGE_NAME, incomplete_name, longest, page_name, parts_of, shots_of
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


def write_contact_sheet(
    writer: PageWriter,
    catalog: pa.Table,
    people: pa.Table,
    looks: pa.Table,
    summary: str,
    *,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, int]:
    """Write the contact sheet of the videos of a catalog; needs a running Ray.

    `people` is a table of `schema.VIDEO_PEOPLE`, `looks` the index of the looks that they come from. Returns the location of the
    first page, and how many pages lack pictures for transient reasons. Raises `StorageError`, and `NodesUnavailableError` if no
    task makes progress.
    """
    present = _present_pages(writer.out)
    videos = list(_contact_videos(catalog, people, looks, writer.preprocessing))
    todo = [video for video in videos if video.page not in present]
    done = len(videos) - len(todo)
    on_video(done, len(videos))
    incomplete: set[str] = set()
    for names in _write_pages(writer, todo):
        incomplete.update(name for name in names if INCOMPLETE in name)
        done += len(names)
        on_video(done, len(videos))
    entries = []
    for video in videos:
        lacks = incomplete_name(video.page)
        page = lacks if lacks in incomplete else video.page
        entries.append(IndexEntry.of(video.video, video.people, writer.archive, page))
    written = {entry.page for entry in entries}
    for name, content in index_pages(writer.archive, entries, summary):
        storage.write_bytes(storage.join(writer.out, CONTACT_FOLDER, name), content)
        written.add(name)
    for name in present - written:
        storage.delete_file(storage.join(writer.out, CONTACT_FOLDER, name))
    return storage.join(writer.out, CONTACT_FOLDER, INDEX_PAGE), len(incomplete)


def _contact_videos(
    catalog: pa.Table, people: pa.Table, looks: pa.Table, preprocessing: Preprocessing
) -> Iterator[ContactVideo]:
    """Yield the videos of a catalog, by name."""
    row_of = {name: row for row, name in enumerate(people["video"].to_pylist())}
    file_of = dict(zip(looks["chunk_id"].to_pylist(), looks["file"].to_pylist(), strict=True))
    plan = plan_looks(catalog, LOOKS_US, looks_digest())
    ids, video_row_C = plan["chunk_id"].to_pylist(), plan["video_row"].to_numpy()
    framing = Framing.of(preprocessing)
    for row in range(len(catalog)):
        video = catalog.slice(row, 1).select(CATALOG_COLUMNS).to_pylist()[0]
        found = row_of.get(video["video"])
        of_video = None if found is None else people.slice(found, 1).to_pylist()[0]
        first, end = np.searchsorted(video_row_C, [row, row + 1]).tolist()
        located = tuple((chunk_id, file_of[chunk_id]) for chunk_id in ids[first:end] if chunk_id in file_of)
        yield ContactVideo(video, of_video, located, page_name(video, of_video, framing))


def _write_pages(writer: PageWriter, todo: list[ContactVideo]) -> Iterator[list[str]]:
    """Run a task per some videos, some at a time; yield the names of the pages that each writes."""
    write = ray.remote(num_cpus=TASK_CPUS, max_retries=TASK_RETRIES)(_write_some)
    max_waiting = TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    remaining = iter(todo)
    waiting: dict[ray.ObjectRef, list[ContactVideo]] = {}
    while True:
        while len(waiting) < max_waiting and (some := list(islice(remaining, VIDEOS_PER_TASK))):
            waiting[write.remote(writer, some)] = some
        if not waiting:
            return
        tasks = list(waiting)
        try:
            names = pop_first_done(tasks, NO_PROGRESS_S, "drawing the contact sheet")
        except (RayTaskError, NodesUnavailableError):
            raise
        except ray.exceptions.RayError:  # more than once one of them killed the process that drew it
            (lost,) = set(waiting) - set(tasks)
            names = [_write_without_pictures(writer, video) for video in waiting[lost]]
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
