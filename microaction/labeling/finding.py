"""Finding people: the stages between the catalog and the plan.

catalog → parts − committed → looks (CPU tasks, each commits) → people of each video (CPU tasks) → `_people.parquet`
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError, RayTaskError

from microaction.distributed.waiting import NodesUnavailableError, pop_first_done
from microaction.errors import FailureKind, TransientError, reason_of
from microaction.labeling.compaction import Compaction
from microaction.labeling.ledger import LOOKS, best_rows, is_retryable, subtract_committed
from microaction.labeling.looks import LOOKS_US, Looker, looks_digest
from microaction.labeling.people import people_key, people_of_looks, read_video_people, write_video_people
from microaction.labeling.plan import chunk_table, plan_blocks, plan_looks
from microaction.people import DetectorError
from microaction.preprocessing import PersonScale
from microaction.schema import COMMITTED_LOOKS, VIDEO_PEOPLE
from microaction.video.sandbox import Limits
from microaction.video.windows import MICROSECONDS

TASK_CPUS = 0.9
TASK_RETRIES = 3
NO_PROGRESS_S = 1800.0  # of all tasks together: a part takes half a minute
TASKS_PER_CPU = 2  # one in work, one on its way
VIDEOS_PER_TASK, VIDEO_US_PER_TASK = 256, 3 * 3600 * MICROSECONDS
VIDEO_COLUMNS = ["video", "version", "duration_s", "video_start_s"]


class LooksError(TransientError, RuntimeError):
    """What was seen cannot be kept."""


@dataclass(frozen=True)
class FoundPeople:
    """The people of a catalog's readable videos without regions (`schema.VIDEO_PEOPLE`), and the index of their looks."""

    people: pa.Table
    looks: pa.Table

    @property
    def num_to_retry(self) -> int:
        """How many parts could not be looked at for transient reasons."""
        return pc.sum(is_retryable(self.looks)).as_py() or 0


def find_archive_people(
    out: str,
    catalog: pa.Table,
    scale: PersonScale,
    limits: Limits,
    *,
    retry_failed: bool = False,
    on_video: Callable[[float, float], None] = lambda done_s, total_s: None,
) -> FoundPeople:
    """Look at what `out` has no looks of, and find the people of all videos; needs a running Ray.

    `limits` are those of a part of 10 minutes; `on_video(done, total)` counts seconds of video. Raises `LooksError` if looks
    cannot be committed, `NodesUnavailableError` if no task makes progress, and `DetectorError` where the cluster's nodes lack
    the detector.
    """
    plan = plan_looks(catalog, LOOKS_US, looks_digest())
    todo = subtract_committed(plan, LOOKS.read_index(out), retry_failed=retry_failed)
    total_s = _video_s(plan)
    done_s = total_s - _video_s(todo)
    on_video(done_s, total_s)
    with Compaction(LOOKS, out) as compaction:
        for file, looked_s in _take_looks(out, todo, catalog, Looker(limits)):
            compaction.add(file)
            done_s += looked_s
            on_video(done_s, total_s)
    return committed_people(out, catalog, plan, scale)


def committed_people(
    out: str, catalog: pa.Table, plan: pa.Table, scale: PersonScale, *, keep: bool = True
) -> FoundPeople:
    """Return the people of the videos all of whose looks are committed; needs a running Ray. With `keep`, they are written."""
    looks = best_rows(LOOKS.read_index(out))
    found = pc.index_in(plan["chunk_id"], value_set=looks["chunk_id"].combine_chunks())
    planned = looks.take(found.drop_null())
    known = read_video_people(out)
    keys = {} if known is None else dict(zip(known["key"].to_pylist(), range(len(known)), strict=True))
    kept: list[int] = []
    new: list[_VideoWork] = []
    for work in _videos(catalog, plan, looks.take(found), scale):
        if work.key in keys:
            kept.append(keys[work.key])
        else:
            new.append(work)
    tables = [VIDEO_PEOPLE.empty_table() if known is None else known.take(pa.array(kept, pa.int64()))]
    tables += _run([_people_task(out, some, scale) for some in _batches(new)])
    people = pa.concat_tables(tables).sort_by("video").combine_chunks()
    if keep and (new or known is None or len(kept) < len(known)):
        write_video_people(out, people)
    return FoundPeople(people, planned)


def _take_looks(out: str, todo: pa.Table, catalog: pa.Table, looker: Looker) -> Iterator[tuple[str, float]]:
    """Run a task per block of parts, some at a time; yield the file that each commits, and the seconds of video in it."""
    look = ray.remote(num_cpus=TASK_CPUS, max_retries=TASK_RETRIES)(look_at_parts)
    blocks = (todo.slice(block.start, len(block)) for block in plan_blocks(todo))
    waiting: dict[ray.ObjectRef, pa.Table] = {}
    try:
        while True:
            for block in islice(blocks, _max_waiting() - len(waiting)):
                waiting[look.remote(out, chunk_table(block, catalog), looker)] = block
            if not waiting:
                return
            tasks = list(waiting)
            try:
                file, reason = pop_first_done(tasks, NO_PROGRESS_S, "looking for people")
            except RayTaskError as error:
                if isinstance(error.cause, DetectorError):
                    raise error.cause from error
                raise
            except NodesUnavailableError:
                raise
            except RayError:  # more than once it killed the process that looked at it
                (lost,) = set(waiting) - set(tasks)
                file, reason = LOOKS.commit(out, _worker_died_rows(chunk_table(waiting[lost], catalog))), ""
            (done,) = set(waiting) - set(tasks)
            if reason:
                raise LooksError(f"what was seen cannot be written to {out}: {reason}")
            yield file, _video_s(waiting.pop(done))
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


def look_at_parts(out: str, parts: pa.Table, looker: Looker) -> tuple[str, str]:
    """Look at a block of parts and commit what is seen; return the name of the file, or the reason why it cannot be written."""
    rows = pa.Table.from_pylist([looker(row) for row in parts.to_pylist()], schema=COMMITTED_LOOKS)
    try:
        return LOOKS.commit(out, rows), ""
    except Exception as error:
        return "", reason_of(error)


def _worker_died_rows(parts: pa.Table) -> pa.Table:
    failure = {
        "looks": [],
        "error": str(FailureKind.WORKER_DIED),
        "reason": "it killed the process that looked for people in it, more than once",
    }
    rows = parts.select([name for name in parts.column_names if name in COMMITTED_LOOKS.names]).to_pylist()
    return pa.Table.from_pylist([row | failure for row in rows], schema=COMMITTED_LOOKS)


@dataclass(frozen=True)
class _VideoWork:
    """A video whose people are to be found: its row of the catalog, what identifies the result, and where its looks are."""

    video: dict[str, Any]
    key: str
    looks: list[dict[str, Any]]


def _videos(catalog: pa.Table, plan: pa.Table, looks: pa.Table, scale: PersonScale) -> Iterator[_VideoWork]:
    """Yield the videos of a plan of looks without those whose looks are not all there; `looks` has the rows of the plan."""
    video_row_C = plan["video_row"].to_numpy()
    firsts = np.flatnonzero(np.diff(video_row_C, prepend=-1))
    for first, end in zip(firsts, [*firsts[1:], len(plan)], strict=True):
        parts = looks.slice(first, end - first).to_pylist()
        if all(part["chunk_id"] is not None for part in parts):
            video = catalog.slice(int(video_row_C[first]), 1).select(VIDEO_COLUMNS).to_pylist()[0]
            yield _VideoWork(video, people_key(video, parts, scale), parts)


def _batches(works: list[_VideoWork]) -> Iterator[list[_VideoWork]]:
    batch: list[_VideoWork] = []
    batch_us = 0
    for work in works:
        length_us = round(work.video["duration_s"] * MICROSECONDS)
        if batch and (len(batch) >= VIDEOS_PER_TASK or batch_us + length_us > VIDEO_US_PER_TASK):
            yield batch
            batch, batch_us = [], 0
        batch.append(work)
        batch_us += length_us
    if batch:
        yield batch


def _people_task(out: str, works: list[_VideoWork], scale: PersonScale) -> Callable[[], ray.ObjectRef]:
    find = ray.remote(num_cpus=TASK_CPUS, max_retries=TASK_RETRIES)(people_of_videos)
    return lambda: find.remote(out, works, scale)


def _run(tasks: list[Callable[[], ray.ObjectRef]]) -> Iterator[pa.Table]:
    waiting: list[ray.ObjectRef] = []
    for start in tasks:
        waiting.append(start())
        while len(waiting) >= _max_waiting():
            yield pop_first_done(waiting, NO_PROGRESS_S, "finding people")
    while waiting:
        yield pop_first_done(waiting, NO_PROGRESS_S, "finding people")


def people_of_videos(out: str, works: list[_VideoWork], scale: PersonScale) -> pa.Table:
    """Return the people of some videos, by name: a table of `schema.VIDEO_PEOPLE`."""
    files = sorted({part["file"] for work in works for part in work.looks})
    ids = pa.array([part["chunk_id"] for work in works for part in work.looks])
    between = (works[0].video["video"], works[-1].video["video"])
    rows = LOOKS.read_rows(out, files, ids, between).sort_by([("video", "ascending"), ("chunk_start_us", "ascending")])
    names = rows["video"].to_pylist()
    people = []
    for work in works:
        first = names.index(work.video["video"])
        parts = rows.slice(first, len(work.looks)).to_pylist()
        people.append(people_of_looks(work.video, parts, scale, work.key))
    return pa.Table.from_pylist(people, schema=VIDEO_PEOPLE)


def _max_waiting() -> int:
    return TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _video_s(chunks: pa.Table) -> float:
    total_us = pc.sum(pc.subtract(chunks["chunk_end_us"], chunks["chunk_start_us"])).as_py()
    return (total_us or 0) / MICROSECONDS
