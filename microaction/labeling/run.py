"""One run: an archive, a model and settings in; a ledger and public tables in one output folder out.

lease → catalog → looks → people → plan − ledger → pipeline → what the pipeline lost, tried alone → publish
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Gauge

from microaction import storage
from microaction.errors import FailureKind
from microaction.labeling.catalog import PassedOver
from microaction.labeling.compaction import Compaction
from microaction.labeling.estimate import Estimate, estimate
from microaction.labeling.execution import detection_head
from microaction.labeling.grid import reach_us
from microaction.labeling.ledger import CHUNKS, best_rows, is_retryable, subtract_attempted
from microaction.labeling.metrics import Metrics
from microaction.labeling.people import people_provenance, people_warnings
from microaction.labeling.pipeline import Pipeline
from microaction.labeling.plan import chunk_table, plan_blocks
from microaction.labeling.prepare import OnStage, PreparedRun, prepare, resolve_model
from microaction.labeling.publication import Publication, PublicationSource, publish
from microaction.labeling.record import write_record
from microaction.labeling.settings import LabelSettings
from microaction.labeling.tables import DecisionRule
from microaction.schema import COMMITTED_CHUNK, SCHEMA_VERSION
from microaction.storage.lease import Lease, hold_lease
from microaction.versions import versions
from microaction.video.decoding.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, microseconds

LEASE_FOLDER = "_lease"
BLOCKS_PER_WAVE = 10_000  # the driver's memory and start-up time grow with the blocks that Ray Data knows of
ATTEMPTS_ALONE = 2  # more than one: processes also die of what is not their work's fault


@dataclass(frozen=True)
class Progress:
    """How far a run is: of videos, of seconds in which people were looked for, of chunks, and again of videos.

    `video_s` counts seconds of labeled or failed video.
    """

    stage: Literal["catalog", "people", "label", "publish"]
    done: int
    total: int
    video_s: float = 0.0
    total_video_s: float = 0.0
    num_windows: int = 0
    num_failed: int = 0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class RunSummary:
    """What a run did: chunks labeled now, chunks committed before, seconds taken, and the totals of the public tables.

    `num_to_retry` counts what failed for transient reasons, so that the same command retries it: chunks, parts that could not be
    looked at, videos that could not be cataloged. `notices` are what users of the model should know, `warnings` what users of
    these labels should, `passed_over` what the archive holds besides videos.
    """

    num_chunks: int
    num_committed_before: int
    label_s: float
    publish_s: float
    num_windows_now: int
    num_failed_now: int
    num_to_retry: int
    publication: Publication
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    passed_over: str = ""


def run_labeling(settings: LabelSettings, *, on_progress: OnProgress = lambda progress: None) -> RunSummary:
    """Label what the ledger of `settings.out` lacks and publish the whole run. Needs a running Ray.

    Raises `CatalogError` (no videos), `CheckpointError` and `RegistryError` (no usable model), `RunError` before any work if
    the output belongs to another run, and `LeaseHeldError` if another process is working in it.
    """
    model = resolve_model(settings)
    with hold_lease(storage.join(settings.out, LEASE_FOLDER)) as lease:
        run = prepare(settings, model, _on_stage(on_progress))
        write_record(settings.out, run.record)
        started_s = time.monotonic()
        labeled = _Labeling(run, lease, on_progress).run()
        labeled_s = time.monotonic()
        index = CHUNKS.read_index(settings.out) if len(run.todo) else run.index
        publication = _publish_tables(run, index, lease, on_progress)
        summary = RunSummary(
            num_chunks=len(run.todo),
            num_committed_before=len(run.plan) - len(run.todo),
            label_s=labeled_s - started_s,
            publish_s=time.monotonic() - labeled_s,
            num_windows_now=labeled.num_windows,
            num_failed_now=labeled.num_failed,
            num_to_retry=_num_to_retry(run, index),
            publication=publication,
            notices=tuple(run.checkpoint.notices),
            warnings=() if run.people is None else tuple(people_warnings(run.people)),
            passed_over=str(PassedOver.of(run.catalog)),
        )
        write_record(settings.out, run.record | {"summary": asdict(summary)})
    return summary


def plan_labeling(settings: LabelSettings, *, on_progress: OnProgress = lambda progress: None) -> Estimate:
    """Return what `run_labeling` would do and about what it takes, from a short measured sample. Writes nothing. Needs a
    running Ray, and raises what `run_labeling` raises."""
    return estimate(prepare(settings, resolve_model(settings), _on_stage(on_progress)))


def _on_stage(on_progress: OnProgress) -> OnStage:
    return lambda stage, done, total: on_progress(Progress(stage, round(done), round(total)))


class _Labeling:
    """The label stage of a run: all of its chunks through the pipeline, then those that were lost in it."""

    def __init__(self, run: PreparedRun, lease: Lease, on_progress: OnProgress) -> None:
        self._run, self._lease, self._on_progress = run, lease, on_progress
        self._out, self._todo = run.settings.out, run.todo
        self._progress = Progress("label", 0, len(run.todo), 0.0, _video_s(run.todo))

    def run(self) -> Progress:
        """Label the chunks; return how far that came."""
        if len(self._todo) == 0:
            return self._progress
        self._remaining = Gauge(
            "microaction_label_remaining_video_seconds", "Seconds of video that the run has not done yet."
        )
        with Compaction(CHUNKS, self._out) as compaction:
            for committed in self._committed(self._todo):
                compaction.add(committed["file"][0].as_py())
            # A block whose decoding killed its worker is gone: its chunks are tried again one by one, so that the culprit
            # takes no other with it.
            compaction.wait()
            lost = subtract_attempted(self._todo, CHUNKS.read_index(self._out))
            for _ in range(ATTEMPTS_ALONE):
                if len(lost):
                    for _ in self._committed(lost, alone=True):
                        pass
                    lost = subtract_attempted(lost, CHUNKS.read_index(self._out))
            if len(lost):
                self._commit_worker_deaths(lost)
        self._remaining.set(0)
        return self._progress

    def _committed(self, todo: pa.Table, *, alone: bool = False) -> Iterator[pa.Table]:
        """Run chunks through the pipeline, with `alone` each in a block of its own; yield what is committed."""
        run = self._run
        reuse = None if run.base_run is None else run.base_run.reuse
        pipeline = Pipeline(
            run.settings, run.checkpoint, run.execution, run.batch_windows, run.pool, run.block_bytes, reuse
        )
        reach = reach_us(run.checkpoint.config)
        for wave, blocks in _waves(todo, microseconds(run.settings.stride_s), alone=alone):
            self._report(self._progress)
            chunks = chunk_table(wave, run.catalog, run.base_chunks, reach_us=reach)
            tables = [chunks.slice(block.start, len(block)) for block in blocks]
            for committed in pipeline.run(tables, records_errors=alone):
                self._lease.check(refresh=False)
                self._report(_advance(self._progress, committed))
                yield committed

    def _commit_worker_deaths(self, lost: pa.Table) -> None:
        CHUNKS.commit(self._out, _worker_died_rows(chunk_table(lost, self._run.catalog)))
        Metrics().count_worker_deaths(len(lost), _video_s(lost))
        progress = self._progress
        self._report(replace(progress, done=progress.done + len(lost), num_failed=progress.num_failed + len(lost)))

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        self._remaining.set(max(0.0, progress.total_video_s - progress.video_s))
        self._on_progress(progress)


def _waves(todo: pa.Table, stride_us: int, *, alone: bool) -> Iterator[tuple[pa.Table, list[range]]]:
    """Yield parts of what is to do, and the blocks of each as ranges of its rows."""
    blocks = [range(row, row + 1) for row in range(len(todo))] if alone else plan_blocks(todo, stride_us)
    for first in range(0, len(blocks), BLOCKS_PER_WAVE):
        some = blocks[first : first + BLOCKS_PER_WAVE]
        start = some[0].start
        yield (
            todo.slice(start, some[-1].stop - start),
            [range(block.start - start, block.stop - start) for block in some],
        )


def _worker_died_rows(chunks: pa.Table) -> pa.Table:
    """Return the ledger's rows of chunks of which every attempt was lost."""
    failure = {
        "decoder": DECODER,
        "num_windows": 0,
        "window_start_us": [],
        "window_end_us": [],
        "window_person": [],
        "probabilities": [],
        "window_run": [],
        "stage": "decode",
        "error": str(FailureKind.WORKER_DIED),
        "reason": "it killed, stalled or failed the process that decoded or labeled it, alone and more than once",
    }
    rows = chunks.select([name for name in chunks.column_names if name in COMMITTED_CHUNK.names]).to_pylist()
    return pa.Table.from_pylist([row | failure for row in rows], schema=COMMITTED_CHUNK)


def _publish_tables(run: PreparedRun, index: pa.Table, lease: Lease, on_progress: OnProgress) -> Publication:
    total = len(run.catalog)
    rule = DecisionRule.of(run.settings, run.checkpoint.config)
    head = detection_head(run.checkpoint)
    on_progress(Progress("publish", 0, total))
    source = PublicationSource(
        run.settings.out,
        run.catalog,
        run.plan,
        run.runs,
        rule,
        metadata={
            "microaction.schema_version": str(SCHEMA_VERSION),
            "microaction.run": json.dumps(run.record["identity"]),
            "microaction.events": json.dumps(rule.in_short),
            "microaction.versions": json.dumps(versions()),
            "microaction.people": people_provenance(run.settings, run.checkpoint),
        },
        people=run.people,
        head=None if head is None else head.to_bytes(),
    )
    publication = publish(
        source,
        index,
        before_switch=lease.check,
        on_part=lambda done, total: on_progress(Progress("publish", done, total)),
    )
    on_progress(Progress("publish", total, total))
    return publication


def _num_to_retry(run: PreparedRun, index: pa.Table) -> int:
    best = best_rows(index)
    of_plan = best.filter(pc.is_in(best["chunk_id"], value_set=run.plan["chunk_id"].combine_chunks()))
    return run.num_looks_to_retry + sum(pc.sum(is_retryable(rows)).as_py() or 0 for rows in (of_plan, run.catalog))


def _advance(progress: Progress, committed: pa.Table) -> Progress:
    return replace(
        progress,
        done=progress.done + len(committed),
        video_s=progress.video_s + _video_s(committed),
        num_windows=progress.num_windows + pc.sum(committed["num_windows"]).as_py(),
        num_failed=progress.num_failed + len(committed) - committed["error"].null_count,
    )


def _video_s(chunks: pa.Table) -> float:
    total_us = pc.sum(pc.subtract(chunks["chunk_end_us"], chunks["chunk_start_us"])).as_py()
    return (total_us or 0) / MICROSECONDS
