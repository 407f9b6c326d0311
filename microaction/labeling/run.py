"""One run: an archive, a model and settings in; a ledger and published tables in one output folder out.

lease → catalog → plan − ledger → pipeline → what the pipeline lost, tried alone → publish
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.util.metrics import Gauge

from microaction import storage
from microaction.config import LabelSettings, digest_of
from microaction.labeling.catalog import make_catalog, read_catalog, write_catalog
from microaction.labeling.compaction import Compaction
from microaction.labeling.earlier import EarlierRun
from microaction.labeling.estimate import Estimate, estimate, measure_model
from microaction.labeling.events import EventRule
from microaction.labeling.ledger import (
    best_rows,
    commit,
    not_the_chunks,
    read_index,
    subtract_committed,
    subtract_tried,
)
from microaction.labeling.metrics import Metrics
from microaction.labeling.pipeline import BATCH_WINDOWS, LabelerPool, block_bytes, label_blocks, labeler_pool
from microaction.labeling.plan import chunks_of, count_all_windows, plan_blocks, plan_chunks
from microaction.labeling.publish import Published, publish
from microaction.labeling.record import RUN_FILE, RunError, differences, read_record, refuse_other_run, write_record
from microaction.labeling.tables import Provenance, Reading
from microaction.lease import Lease, held
from microaction.machines import await_machines, result_of
from microaction.model import Checkpoint, CheckpointConfig
from microaction.model.checkpoint import require_labels
from microaction.model.classifier import Execution, is_there, preferred_precision
from microaction.model.inference import can_compile
from microaction.registry import Resolved, load_model, pin, resolve
from microaction.schema import COMMITTED_CHUNK, SCHEMA_VERSION
from microaction.taxonomy import ACTIONS
from microaction.versions import versions
from microaction.video.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, microseconds

CATALOG_FILE = "_catalog.parquet"
LEASE_FOLDER = "_lease"
WINDOW_SETTINGS = {"window_s", "stride_s", "chunk_s"}  # what changes a chunk's windows; part of every chunk's id
BLOCKS_PER_WAVE = 10_000  # the driver's memory and start-up time grow with the blocks that Ray Data has before it
COMPILE_COST_S = 120.0  # of a labeler, generously
SLOWEST_WINDOW_S = 1.0
COMPILE_GAIN = 0.4  # of the time of a window: eager 4.7, compiled 8.3 clips/s in tests/benchmarks/RESULTS.md
LEDGER_FORMAT = 4
TRIES_ALONE = 2
WORKER_DIED = "WorkerDied"

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class _Work:
    """What a run is, before any of it is done."""

    checkpoint: Checkpoint
    catalog: pa.Table
    plan: pa.Table
    index: pa.Table
    todo: pa.Table
    settings: LabelSettings  # with all that was left open settled
    pool: LabelerPool
    execution: Execution
    runs: tuple[Provenance, ...]
    earlier: EarlierRun | None
    places: pa.Table | None  # where that one has the plan's chunks
    record: dict[str, Any]


def run_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> RunSummary:
    """Labels what the ledger of `settings.out` lacks and publishes the whole run. Needs a running Ray.

    Raises `CatalogError` (no videos), `CheckpointError` and `RegistryError` (no usable model), `RunError` before any work
    where the output belongs to another run, and `LeaseHeldError` where another process is at work in it.
    """
    model, pinned = _resolve_model(settings)
    with held(storage.join(settings.out, LEASE_FOLDER)) as lease:
        work = _prepare(settings, model, pinned, on_progress)
        settings = work.settings
        write_record(settings.out, work.record)
        started_s = time.monotonic()
        labelled = _label(work, settings, lease, on_progress)
        labelled_s = time.monotonic()
        published = _publish(work, settings, lease, on_progress)
        summary = RunSummary(
            len(work.todo),
            len(work.plan) - len(work.todo),
            labelled_s - started_s,
            time.monotonic() - labelled_s,
            labelled.num_windows,
            labelled.num_failed,
            _num_to_retry(work, settings),
            published,
        )
        write_record(settings.out, work.record | {"summary": asdict(summary)})
    return summary


def plan_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Estimate:
    """What `run_labeling` would do and about what it takes, from a short measured sample. Writes nothing. Needs a running
    Ray, and raises what `run_labeling` raises."""
    model, pinned = _resolve_model(settings)
    work = _prepare(settings, model, pinned, on_progress)
    estimated = (work.catalog, work.plan, work.todo, work.index, work.settings, work.checkpoint.config, work.execution)
    return estimate(*estimated)


def _resolve_model(settings: LabelSettings) -> tuple[Resolved, str]:
    """The model, and its name that never changes. What was in production when a run began is what all of it uses, whatever is
    promoted before it ends."""
    begun = read_record(settings.out)
    if begun is not None and "summary" not in begun and begun.get("model", {}).get("asked") == settings.model:
        pinned = begun["model"]["pinned"]
    else:
        pinned = pin(settings.model)
    return resolve(pinned), pinned


def _prepare(settings: LabelSettings, model: Resolved, pinned: str, on_progress: Callable[[Progress], None]) -> _Work:
    checkpoint = load_model(model)
    require_labels(checkpoint.config, ACTIONS, settings.model)
    _require_memory(settings, checkpoint.config)
    asked = settings.model
    record = read_record(settings.out)
    begun = None if record is None else record["identity"]
    earlier = _earlier_run(settings)
    identity: dict[str, Any] = {
        "format": LEDGER_FORMAT,
        "archive": settings.archive,
        "model_digest": checkpoint.digest,
        **settings.model_dump(mode="json", include=WINDOW_SETTINGS),
        "relabel": None if earlier is None else {"below": earlier.keeper.below, **earlier.digests},
    }
    refuse_other_run(settings.out, begun, identity)  # before machines are asked for
    await_machines(settings)
    pool = labeler_pool(settings)
    if pool.device == "GPU" and not _asked(is_there, settings, pool):
        logger.warning(
            "torch sees no GPU on a machine that has one for Ray: labelling runs on its CPUs, which is slow; is its driver "
            "new enough for this build of torch (%s)?",
            torch.__version__,
        )
    batch_windows = settings.batch_windows or (begun or {}).get("batch_windows") or BATCH_WINDOWS[pool.device]
    settings = settings.model_copy(update={"model": model.uri, "batch_windows": batch_windows})
    # How the network is run changes its rounding: it is decided once for all of a run, and part of every chunk's id.
    precision = _precision(settings, begun, pool)
    is_compiled = {"yes": True, "no": False, "auto": None if begun is None else begun.get("is_compiled")}
    identity |= {
        "device": pool.device,
        "batch_windows": batch_windows,
        "precision": precision,
        "is_compiled": is_compiled[settings.compile],
    }
    refuse_other_run(settings.out, begun, identity)
    catalog = _catalog(settings, on_progress)
    if identity["is_compiled"] is None:
        identity["is_compiled"] = _compiling_pays(
            settings, count_all_windows(catalog, settings), checkpoint, precision, pool
        )
    execution = Execution(precision, identity["is_compiled"])
    how = asdict(execution) | {name: identity[name] for name in ("device", "batch_windows", "relabel")}
    settings_digest = digest_of(settings, WINDOW_SETTINGS, **how)
    plan = plan_chunks(catalog, microseconds(settings.chunk_s), checkpoint.digest, settings_digest)
    index = read_index(settings.out)
    runs = (Provenance(settings.model, checkpoint.digest, settings_digest), *(earlier.runs if earlier else ()))
    return _Work(
        checkpoint,
        catalog,
        plan,
        index,
        subtract_committed(plan, index, retry_failed=settings.retry_failed),
        settings,
        pool,
        execution,
        runs,
        earlier,
        None if earlier is None else earlier.places(plan, catalog, microseconds(settings.chunk_s)),
        {
            "identity": identity,
            "model": {"asked": asked, "pinned": pinned},
            "settings": settings.model_dump(mode="json"),
            "runs": [asdict(run) for run in runs],
            "versions": versions(),
        },
    )


def _earlier_run(settings: LabelSettings) -> EarlierRun | None:
    if settings.earlier is None:
        return None
    record = read_record(settings.earlier)
    if record is None:
        raise RunError(f"{settings.earlier} holds no run to keep windows of: there is no {RUN_FILE}")
    if "summary" not in record:
        raise RunError(f"the run in {settings.earlier} has not ended; run its command again first")
    same = {"format": LEDGER_FORMAT} | settings.model_dump(mode="json", include=WINDOW_SETTINGS)
    different = differences({name: record["identity"].get(name) for name in same}, same)
    if different:
        raise RunError(f"the windows in {settings.earlier} are others ({different}); none of them can be kept")
    return EarlierRun.of(settings.earlier, record, settings.relabel_below)


def _catalog(settings: LabelSettings, on_progress: Callable[[Progress], None]) -> pa.Table:
    uri = storage.join(settings.out, CATALOG_FILE)
    if settings.catalog is not None:
        catalog = read_catalog(settings.catalog)
    else:
        catalog = make_catalog(
            settings.archive,
            known=read_catalog(uri) if storage.exists(uri) else None,
            retry_failed=settings.retry_failed,
            on_video=lambda done, total: on_progress(Progress("catalog", done, total)),
            on_part=None if settings.plan else lambda part: write_catalog(part, uri),
        )
    if not settings.plan:
        write_catalog(catalog, uri)
    return catalog


def _require_memory(settings: LabelSettings, checkpoint: CheckpointConfig) -> None:
    """Raises `RunError` where decoders could not hold a chunk."""
    needed_gib = 2 * block_bytes(settings, checkpoint) / 2**30  # its frames, and a copy of them on their way
    if needed_gib > settings.decode_memory_gib:
        raise RunError(
            f"chunk_s ({settings.chunk_s:g}) needs {needed_gib:.1f} GiB to decode, more than decode_memory_gib "
            f"({settings.decode_memory_gib:g}); make chunks shorter, or allow more"
        )


def _precision(settings: LabelSettings, begun: dict[str, Any] | None, pool: LabelerPool) -> Any:
    if settings.precision != "auto":
        return settings.precision
    if begun is not None and "precision" in begun:
        return begun["precision"]
    return _asked(preferred_precision, settings, pool)


def _asked(ask: Callable[[str], Any], settings: LabelSettings, pool: LabelerPool) -> Any:
    """What a machine that will label answers for its kind of device."""
    task = ray.remote(num_cpus=0, num_gpus=pool.num_gpus)(ask).remote("cuda" if pool.num_gpus else "cpu")
    return result_of(task, settings.machines_wait_s, "asking a machine that labels what it can do")


def _compiling_pays(
    settings: LabelSettings, num_windows: int, checkpoint: Checkpoint, precision: Any, pool: LabelerPool
) -> bool:
    # Of labelers' time, below which it cannot.
    least_s = COMPILE_COST_S / COMPILE_GAIN * pool.max_size
    if num_windows * SLOWEST_WINDOW_S < least_s or not _asked(can_compile, settings, pool):
        return False
    return num_windows * measure_model(settings, checkpoint.config, Execution(precision, False)) > least_s


def _label(work: _Work, settings: LabelSettings, lease: Lease, on_progress: Callable[[Progress], None]) -> Progress:
    todo = work.todo
    total_us = pc.sum(pc.subtract(todo["chunk_end_us"], todo["chunk_start_us"])).as_py() or 0
    progress = Progress("label", 0, len(todo), 0.0, total_us / MICROSECONDS)
    if len(todo) == 0:
        return progress
    remaining = Gauge("microaction_label_remaining_video_seconds", "Seconds of video that the run has before it.")
    with Compaction(settings.out) as compaction:
        for part, blocks in _waves(todo):
            on_progress(progress)
            remaining.set(progress.total_video_s - progress.video_s)
            for committed in _committed(part, blocks, work, settings):
                lease.require(look=False)
                compaction.add(committed["file"][0].as_py())
                progress = _advance(progress, committed)
                remaining.set(progress.total_video_s - progress.video_s)
                on_progress(progress)
        # A block whose decoding killed its worker is gone; its chunks are tried again one by one, so that the one to blame
        # takes no other with it.
        compaction.settle()
        lost = subtract_tried(todo, read_index(settings.out))
        for _ in range(TRIES_ALONE):  # more than one: processes also die of what is not their work's fault
            for part, blocks in _waves(lost, alone=True) if len(lost) else ():
                for committed in _committed(part, blocks, work, settings, alone=True):
                    lease.require(look=False)
                    progress = _advance(progress, committed)
                    on_progress(progress)
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
    part: pa.Table, blocks: list[range], work: _Work, settings: LabelSettings, *, alone: bool = False
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


def _publish(work: _Work, settings: LabelSettings, lease: Lease, on_progress: Callable[[Progress], None]) -> Published:
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
        read_index(settings.out) if len(work.todo) else work.index,
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


def _num_to_retry(work: _Work, settings: LabelSettings) -> int:
    best = best_rows(read_index(settings.out) if len(work.todo) else work.index)
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
