"""One run: an archive, a model and settings in; a ledger and published tables in one output folder out.

lease → catalog → plan − ledger → pipeline → what the pipeline lost, tried alone → publish
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.metrics import Gauge

from microaction import storage
from microaction.config import LabelSettings, digest_of
from microaction.labeling.catalog import make_catalog, read_catalog, write_catalog
from microaction.labeling.compaction import Compaction
from microaction.labeling.earlier import EarlierRun
from microaction.labeling.estimate import Estimate, estimate, measure_model
from microaction.labeling.events import EventRule
from microaction.labeling.ledger import commit, read_index, subtract_committed, subtract_tried
from microaction.labeling.pipeline import label_blocks, labeler_pool
from microaction.labeling.plan import chunks_of, count_all_windows, plan_blocks, plan_chunks
from microaction.labeling.publish import Published, publish
from microaction.labeling.record import RUN_FILE, RunError, differences, read_record, refuse_other_run, write_record
from microaction.labeling.tables import Provenance, Reading
from microaction.lease import Lease, held
from microaction.machines import await_machines
from microaction.model import Checkpoint
from microaction.model.checkpoint import require_labels
from microaction.model.classifier import Execution, preferred_precision
from microaction.model.inference import can_compile
from microaction.registry import Resolved, load_model, resolve
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
LEDGER_FORMAT = 3
TRIES_ALONE = 2


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
    """What a run did: chunks labelled now, chunks found done, seconds taken, and the totals of the published tables."""

    num_chunks: int
    num_committed_before: int
    label_s: float
    publish_s: float
    num_windows_now: int
    num_failed_now: int
    published: Published


@dataclass(frozen=True)
class _Work:
    """What a run is, before any of it is done."""

    checkpoint: Checkpoint
    catalog: pa.Table
    plan: pa.Table
    index: pa.Table
    todo: pa.Table
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
    settings, model = _with_resolved_model(settings)
    with held(storage.join(settings.out, LEASE_FOLDER)) as lease:
        work = _prepare(settings, model, on_progress)
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
            published,
        )
        write_record(settings.out, work.record | {"summary": asdict(summary)})
    unaccounted_s = published.video_s - published.covered_s - published.failed_s
    if abs(unaccounted_s) > len(work.catalog) / MICROSECONDS:
        raise RunError(f"{unaccounted_s:.6f} s of video are neither labelled nor in failures/; please report this")
    return summary


def plan_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Estimate:
    """What `run_labeling` would do and about what it takes, from a short measured sample. Writes nothing. Needs a running
    Ray, and raises what `run_labeling` raises."""
    settings, model = _with_resolved_model(settings)
    work = _prepare(settings, model, on_progress)
    return estimate(work.catalog, work.plan, work.todo, work.index, settings, work.checkpoint.config, work.execution)


def _with_resolved_model(settings: LabelSettings) -> tuple[LabelSettings, Resolved]:
    """What is in production now is what the whole run uses."""
    model = resolve(settings.model)
    return settings.model_copy(update={"model": model.uri}), model


def _prepare(settings: LabelSettings, model: Resolved, on_progress: Callable[[Progress], None]) -> _Work:
    checkpoint = load_model(model)
    await_machines(settings)
    require_labels(checkpoint.config, ACTIONS, settings.model)
    record = read_record(settings.out)
    begun = None if record is None else record["identity"]
    earlier = _earlier_run(settings)
    # How the network is run changes its rounding: it is decided once for all of a run, and part of every chunk's id.
    precision = _precision(settings, begun)
    is_compiled = {"yes": True, "no": False, "auto": None if begun is None else begun.get("is_compiled")}
    identity = {
        "format": LEDGER_FORMAT,
        "archive": settings.archive,
        "model_digest": checkpoint.digest,
        **settings.model_dump(mode="json", include=WINDOW_SETTINGS),
        "precision": precision,
        "is_compiled": is_compiled[settings.compile],
        "relabel": None if earlier is None else {"below": earlier.keeper.below, **earlier.digests},
    }
    refuse_other_run(settings.out, begun, identity)
    catalog = _catalog(settings, on_progress)
    if identity["is_compiled"] is None:
        identity["is_compiled"] = _compiling_pays(settings, count_all_windows(catalog, settings), checkpoint, precision)
    execution = Execution(precision, identity["is_compiled"])
    settings_digest = digest_of(settings, WINDOW_SETTINGS, **asdict(execution), relabel=identity["relabel"])
    plan = plan_chunks(catalog, microseconds(settings.chunk_s), checkpoint.digest, settings_digest)
    index = read_index(settings.out)
    runs = (Provenance(settings.model, checkpoint.digest, settings_digest), *(earlier.runs if earlier else ()))
    return _Work(
        checkpoint,
        catalog,
        plan,
        index,
        subtract_committed(plan, index, retry_failed=settings.retry_failed),
        execution,
        runs,
        earlier,
        None if earlier is None else earlier.places(plan, catalog, microseconds(settings.chunk_s)),
        {
            "identity": identity,
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
            on_video=lambda done, total: on_progress(Progress("catalog", done, total)),
            on_part=None if settings.plan else lambda part: write_catalog(part, uri),
        )
    if not settings.plan:
        write_catalog(catalog, uri)
    return catalog


def _precision(settings: LabelSettings, earlier: dict[str, Any] | None) -> Any:
    if settings.precision != "auto":
        return settings.precision
    if earlier is not None and "precision" in earlier:
        return earlier["precision"]
    pool = labeler_pool(settings)
    ask = ray.remote(num_cpus=0, num_gpus=pool.num_gpus)(preferred_precision)
    return ray.get(ask.remote("cuda" if pool.num_gpus else "cpu"))


def _compiling_pays(settings: LabelSettings, num_windows: int, checkpoint: Checkpoint, precision: Any) -> bool:
    # Of labelers' time, below which it cannot.
    least_s = COMPILE_COST_S / COMPILE_GAIN * labeler_pool(settings).max_size
    if num_windows * SLOWEST_WINDOW_S < least_s:
        return False
    pool = labeler_pool(settings)
    ask = ray.remote(num_cpus=0, num_gpus=pool.num_gpus)(can_compile)
    if not ray.get(ask.remote("cuda" if pool.num_gpus else "cpu")):
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
                for committed in _committed(part, blocks, work, settings):
                    progress = _advance(progress, committed)
                    on_progress(progress)
            lost = subtract_tried(lost, read_index(settings.out))
        if len(lost):
            commit(settings.out, _worker_died(chunks_of(lost, work.catalog)))
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


def _committed(part: pa.Table, blocks: list[range], work: _Work, settings: LabelSettings) -> Iterator[pa.Table]:
    chunks = chunks_of(part, work.catalog, work.places)
    tables = [chunks.slice(block.start, len(block)) for block in blocks]
    keeper = None if work.earlier is None else work.earlier.keeper
    yield from label_blocks(tables, settings, work.checkpoint.config, work.execution, keeper)


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
        "error": "WorkerDied",
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


def _advance(progress: Progress, committed: pa.Table) -> Progress:
    video_us = pc.sum(pc.subtract(committed["chunk_end_us"], committed["chunk_start_us"])).as_py()
    return replace(
        progress,
        done=progress.done + len(committed),
        video_s=progress.video_s + video_us / MICROSECONDS,
        num_windows=progress.num_windows + pc.sum(committed["num_windows"]).as_py(),
        num_failed=progress.num_failed + len(committed) - committed["error"].null_count,
    )
