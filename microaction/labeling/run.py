"""One run: an archive, a model and settings in; a ledger and published tables in one output folder out.

lease → catalog → plan − ledger → pipeline → what the pipeline lost, tried alone → publish
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Gauge

from microaction import storage
from microaction.config import LabelSettings
from microaction.labeling.compaction import Compaction
from microaction.labeling.estimate import Estimate, estimate
from microaction.labeling.events import EventRule
from microaction.labeling.ledger import best_rows, commit, not_the_chunks, read_index, subtract_tried
from microaction.labeling.metrics import Metrics
from microaction.labeling.pipeline import label_blocks
from microaction.labeling.plan import chunks_of, plan_blocks
from microaction.labeling.publish import Published, publish
from microaction.labeling.record import write_record
from microaction.labeling.tables import Reading
from microaction.labeling.work import Work, prepare, resolve_model
from microaction.lease import Lease, held
from microaction.schema import COMMITTED_CHUNK, SCHEMA_VERSION
from microaction.versions import versions
from microaction.video.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, microseconds

LEASE_FOLDER = "_lease"
BLOCKS_PER_WAVE = 10_000  # the driver's memory and start-up time grow with the blocks that Ray Data has before it
TRIES_ALONE = 2
WORKER_DIED = "WorkerDied"


@dataclass(frozen=True)
class Progress:
    """How far a run is; `stage` is catalog, label or publish, `video_s` counts seconds of labelled or failed video."""

    stage: str
    done: int
    total: int
    video_s: float = 0.0
    total_video_s: float = 0.0
    num_windows: int = 0
    num_failed: int = 0


@dataclass(frozen=True)
class RunSummary:
    """What a run did: chunks labelled now, chunks found done, seconds taken, and the totals of the published tables.

    `num_to_retry` counts chunks, and videos that could not be catalogued, that failed for reasons that are not their own: the
    same command takes them again.
    """

    num_chunks: int
    num_committed_before: int
    label_s: float
    publish_s: float
    num_windows_now: int
    num_failed_now: int
    num_to_retry: int
    published: Published


def run_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> RunSummary:
    """Labels what the ledger of `settings.out` lacks and publishes the whole run. Needs a running Ray.

    Raises `CatalogError` (no videos), `CheckpointError` and `RegistryError` (no usable model), `RunError` before any work
    where the output belongs to another run, and `LeaseHeldError` where another process is at work in it.
    """
    model, pinned = resolve_model(settings)
    with held(storage.join(settings.out, LEASE_FOLDER)) as lease:
        work = prepare(settings, model, pinned, _counting_videos(on_progress))
        settings = work.settings
        write_record(settings.out, work.record)
        started_s = time.monotonic()
        labelled = _label(work, settings, lease, on_progress)
        labelled_s = time.monotonic()
        index = read_index(settings.out) if len(work.todo) else work.index
        published = _publish(work, index, settings, lease, on_progress)
        summary = RunSummary(
            len(work.todo),
            len(work.plan) - len(work.todo),
            labelled_s - started_s,
            time.monotonic() - labelled_s,
            labelled.num_windows,
            labelled.num_failed,
            _num_to_retry(work, index),
            published,
        )
        write_record(settings.out, work.record | {"summary": asdict(summary)})
    return summary


def plan_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Estimate:
    """What `run_labeling` would do and about what it takes, from a short measured sample. Writes nothing. Needs a running
    Ray, and raises what `run_labeling` raises."""
    model, pinned = resolve_model(settings)
    work = prepare(settings, model, pinned, _counting_videos(on_progress))
    estimated = (work.catalog, work.plan, work.todo, work.index, work.settings, work.checkpoint.config, work.execution)
    return estimate(*estimated)


def _counting_videos(on_progress: Callable[[Progress], None]) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(Progress("catalog", done, total))


def _label(work: Work, settings: LabelSettings, lease: Lease, on_progress: Callable[[Progress], None]) -> Progress:
    todo = work.todo
    total_us = pc.sum(pc.subtract(todo["chunk_end_us"], todo["chunk_start_us"])).as_py() or 0
    progress = Progress("label", 0, len(todo), 0.0, total_us / MICROSECONDS)
    if len(todo) == 0:
        return progress
    remaining = Gauge("microaction_label_remaining_video_seconds", "Seconds of video that the run has before it.")

    def tell(progress: Progress) -> None:
        remaining.set(progress.total_video_s - progress.video_s)
        on_progress(progress)

    with Compaction(settings.out) as compaction:
        for part, blocks in _waves(todo):
            tell(progress)
            for committed in _committed(part, blocks, work, settings):
                lease.require(look=False)
                compaction.add(committed["file"][0].as_py())
                progress = _advance(progress, committed)
                tell(progress)
        # A block whose decoding killed its worker is gone; its chunks are tried again one by one, so that the one to blame
        # takes no other with it.
        compaction.settle()
        lost = subtract_tried(todo, read_index(settings.out))
        for _ in range(TRIES_ALONE):  # more than one: processes also die of what is not their work's fault
            for part, blocks in _waves(lost, alone=True) if len(lost) else ():
                for committed in _committed(part, blocks, work, settings, alone=True):
                    lease.require(look=False)
                    progress = _advance(progress, committed)
                    tell(progress)
            lost = subtract_tried(lost, read_index(settings.out))
        if len(lost):
            commit(settings.out, _worker_died(chunks_of(lost, work.catalog)))
            lost_us = pc.sum(pc.subtract(lost["chunk_end_us"], lost["chunk_start_us"])).as_py()
            Metrics().count_died(WORKER_DIED, len(lost), lost_us / MICROSECONDS)
            progress = replace(progress, done=progress.done + len(lost), num_failed=progress.num_failed + len(lost))
    remaining.set(0)
    return progress


def _waves(todo: pa.Table, *, alone: bool = False) -> Iterator[tuple[pa.Table, list[range]]]:
    """Parts of what is to do, and the blocks of each as ranges of its rows; with `alone` a block for every chunk."""
    blocks = [range(row, row + 1) for row in range(len(todo))] if alone else plan_blocks(todo)
    for first in range(0, len(blocks), BLOCKS_PER_WAVE):
        some = blocks[first : first + BLOCKS_PER_WAVE]
        start = some[0].start
        yield (
            todo.slice(start, some[-1].stop - start),
            [range(block.start - start, block.stop - start) for block in some],
        )


def _committed(
    part: pa.Table, blocks: list[range], work: Work, settings: LabelSettings, *, alone: bool = False
) -> Iterator[pa.Table]:
    chunks = chunks_of(part, work.catalog, work.places)
    tables = [chunks.slice(block.start, len(block)) for block in blocks]
    keeper = None if work.earlier is None else work.earlier.keeper
    config, execution = work.checkpoint.config, work.execution
    yield from label_blocks(tables, settings, config, execution, work.pool, keeper, records_errors=alone)


def _worker_died(chunks: pa.Table) -> pa.Table:
    """What the ledger says of chunks that no attempt at came back from."""
    failure = {
        "decoder": DECODER,
        "num_windows": 0,
        "window_start_us": [],
        "window_end_us": [],
        "probabilities": [],
        "window_run": [],
        "stage": "decode",
        "error": WORKER_DIED,
        "reason": "it killed, stalled or failed the process that decoded or labelled it, alone and more than once",
    }
    rows = chunks.select([name for name in chunks.column_names if name in COMMITTED_CHUNK.names]).to_pylist()
    return pa.Table.from_pylist([row | failure for row in rows], schema=COMMITTED_CHUNK)


def _publish(
    work: Work, index: pa.Table, settings: LabelSettings, lease: Lease, on_progress: Callable[[Progress], None]
) -> Published:
    rule = EventRule(
        settings.min_probability,
        settings.kept_probability,
        microseconds(settings.max_gap_s),
        microseconds(settings.min_event_s),
    )
    total = len(work.catalog)
    on_progress(Progress("publish", 0, total))
    published = publish(
        settings.out,
        work.catalog,
        work.plan,
        index,
        work.runs,
        Reading(work.checkpoint.config.labels, rule, settings.abstain_below),
        metadata={
            "microaction.schema_version": str(SCHEMA_VERSION),
            "microaction.run": json.dumps(work.record["identity"]),
            "microaction.events": json.dumps(asdict(rule) | {"abstain_below": settings.abstain_below}),
            "microaction.versions": json.dumps(versions()),
        },
        before_switch=lease.require,
        on_part=lambda done, total: on_progress(Progress("publish", done, total)),
    )
    on_progress(Progress("publish", total, total))
    return published


def _num_to_retry(work: Work, index: pa.Table) -> int:
    best = best_rows(index)
    of_plan = best.filter(pc.is_in(best["chunk_id"], value_set=work.plan["chunk_id"].combine_chunks()))
    return sum(pc.sum(not_the_chunks(rows)).as_py() or 0 for rows in (of_plan, work.catalog))


def _advance(progress: Progress, committed: pa.Table) -> Progress:
    video_us = pc.sum(pc.subtract(committed["chunk_end_us"], committed["chunk_start_us"])).as_py()
    return replace(
        progress,
        done=progress.done + len(committed),
        video_s=progress.video_s + video_us / MICROSECONDS,
        num_windows=progress.num_windows + pc.sum(committed["num_windows"]).as_py(),
        num_failed=progress.num_failed + len(committed) - committed["error"].null_count,
    )
