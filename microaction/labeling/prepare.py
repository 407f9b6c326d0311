"""What a run is before any of it is done: checkpoint, catalog, plan, and how the network is run, all decided.

Whatever decides a chunk's windows or their probabilities is part of the run's identity, which its output keeps.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import torch

from microaction.distributed.resources import await_nodes, cluster_resources
from microaction.labeling.catalog import catalog_of_run
from microaction.labeling.execution import BATCH_STEPS, BATCH_WINDOWS, WINDOW_SETTINGS, settings_digest, work_digest
from microaction.labeling.finding import FoundPeople, committed_people, find_archive_people
from microaction.labeling.grid import is_detector, of_task, reach_us, warn_of_unused, window_grid
from microaction.labeling.ledger import CHUNKS, LOOKS, subtract_committed
from microaction.labeling.looks import LOOKS_US, check_detector, looks_digest
from microaction.labeling.measure import measure_network, query_labeler_node
from microaction.labeling.people import people_source, person_scale, write_video_people
from microaction.labeling.people_list import people_of_list, read_people_list
from microaction.labeling.plan import plan_chunks, plan_looks
from microaction.labeling.pool import LabelerPool, block_bytes, labeler_pool, max_block_bytes
from microaction.labeling.record import (
    LEDGER_FORMAT,
    RUN_FILE,
    RunError,
    differences,
    read_record,
    refuse_other_run,
)
from microaction.labeling.reuse import BaseRun
from microaction.labeling.settings import LabelSettings
from microaction.labeling.skeletons import check_skeletons
from microaction.labeling.tables import Provenance
from microaction.models import Checkpoint, load_checkpoint
from microaction.models.checkpoint import check_labels
from microaction.models.classifier import Execution, is_available, preferred_precision
from microaction.models.inference import can_compile
from microaction.registry import pin, resolve
from microaction.taxonomy import ACTIONS
from microaction.versions import versions
from microaction.video.sandbox import Limits

COMPILE_COST_S = 120.0  # per labeler, generously
MAX_WINDOW_S = 1.0  # that the network takes
COMPILE_GAIN = 0.4  # of the time per window: eager 4.7, compiled 8.3 clips/s in tests/benchmarks/RESULTS.md

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """A run before any of it is done.

    `people` are those of its videos (`schema.VIDEO_PEOPLE`), or None if whole frames are labeled. `runs` are those that label
    its windows, itself first; `base_chunks` says where `base_run` holds the plan's chunks. `block_bytes`: at most of a block's
    frames.
    """

    settings: LabelSettings
    checkpoint: Checkpoint
    catalog: pa.Table
    people: pa.Table | None
    num_looks_to_retry: int
    plan: pa.Table
    index: pa.Table
    todo: pa.Table
    pool: LabelerPool
    execution: Execution
    batch_windows: int
    block_bytes: int
    runs: tuple[Provenance, ...]
    base_run: BaseRun | None
    base_chunks: pa.Table | None
    record: dict[str, Any]


@dataclass(frozen=True)
class ResolvedModel:
    """The checkpoint of a run, and its name that never changes (`registry.pin`)."""

    checkpoint: Checkpoint
    pinned: str


def resolve_model(settings: LabelSettings) -> ResolvedModel:
    """Load the checkpoint. What was in production when a run started is what all of it uses, whatever is promoted before it
    ends. Raises `RegistryError`, `CheckpointError`, `PeopleError` and `DetectorError`."""
    record = read_record(settings.out)
    if record is not None and "summary" not in record and record["model"]["requested"] == settings.model:
        pinned = record["model"]["pinned"]
    else:
        pinned = pin(settings.model)
    checkpoint = load_checkpoint(resolve(pinned))
    check_labels(checkpoint.config, ACTIONS, settings.model)
    check_skeletons(settings, checkpoint)
    if people_source(settings, checkpoint) == "auto":
        check_detector()
    return ResolvedModel(checkpoint, pinned)


OnStage = Callable[[Literal["catalog", "people"], float, float], None]


def prepare(settings: LabelSettings, model: ResolvedModel, on_stage: OnStage) -> PreparedRun:
    """Decide all that decides what a run's chunks are, and subtract what is committed.

    `on_stage(stage, done, total)` counts cataloged videos, then seconds of video in which people were looked for. Raises what
    `run.run_labeling` raises before any work.
    """
    checkpoint = model.checkpoint
    warn_of_unused(settings, checkpoint.config)
    settings = of_task(settings, checkpoint.config)
    digest_of_work = work_digest(checkpoint)
    _check_memory(settings, block_bytes(settings, checkpoint.config))
    record = read_record(settings.out)
    recorded = None if record is None else record["identity"]
    base_run = _base_run(settings)
    if base_run is not None and is_detector(checkpoint.config):
        raise RunError("relabel=uncertain reuses windows, which a detector has not: use relabel=events")
    identity: dict[str, Any] = {
        "format": LEDGER_FORMAT,
        "archive": settings.archive,
        "model_digest": digest_of_work,
        **settings.model_dump(mode="json", include=WINDOW_SETTINGS),
        "relabel": None if base_run is None else {"below": base_run.reuse.below, **base_run.digests},
    }
    refuse_other_run(settings.out, recorded, identity)  # before nodes are requested
    await_nodes(settings)
    pool = labeler_pool(settings, cluster_resources(settings))
    runs_network = settings.relabel != "events"  # what is committed was computed elsewhere, whatever is here now
    if runs_network:
        _warn_without_gpu(settings, pool)
    batches = BATCH_STEPS if is_detector(checkpoint.config) else BATCH_WINDOWS
    batch_windows = settings.batch_windows or (recorded or {}).get("batch_windows") or batches[pool.device]
    precision = _precision(settings, recorded, pool)
    is_compiled = {"yes": True, "no": False, "auto": None if recorded is None else recorded.get("is_compiled")}
    if is_detector(checkpoint.config):
        is_compiled = dict.fromkeys(is_compiled, False)  # its frames come in one size, but a few behind each other
    identity |= {
        "device": pool.device if runs_network else (recorded or {}).get("device"),
        "batch_windows": batch_windows,
        "precision": precision,
        "is_compiled": is_compiled[settings.compile],
    }
    refuse_other_run(settings.out, recorded, identity)
    catalog = catalog_of_run(settings, lambda done, total: on_stage("catalog", done, total), keep=not settings.plan)
    found = _people(settings, checkpoint, catalog, lambda done, total: on_stage("people", done, total))
    people = None if found is None else found.people
    grid, reach = window_grid(settings, checkpoint.config), reach_us(checkpoint.config)
    if identity["is_compiled"] is None:
        eager = Execution(precision, is_compiled=False)
        identity["is_compiled"] = _compiling_pays(
            settings,
            _num_windows(plan_chunks(catalog, settings, "", "", people, grid=grid)),
            checkpoint,
            eager,
            batch_windows,
            pool,
        )
    execution = Execution(precision, identity["is_compiled"])
    digest = settings_digest(
        settings, execution, device=identity["device"], batch_windows=batch_windows, relabel=identity["relabel"]
    )
    plan = plan_chunks(catalog, settings, digest_of_work, digest, people, grid=grid, reach_us=reach)
    needed_bytes = max_block_bytes(plan, settings, checkpoint.config)
    _check_memory(settings, needed_bytes)
    index = CHUNKS.read_index(settings.out)
    todo = subtract_committed(plan, index, retry_failed=settings.retry_failed)
    if settings.relabel == "events" and len(todo):
        raise RunError(
            f"{settings.out} lacks {len(todo)} of {len(plan)} chunks, so their events cannot be made anew: leave out relabel"
        )
    runs = (Provenance(checkpoint.ref.uri, checkpoint.digest, digest), *(base_run.runs if base_run else ()))
    return PreparedRun(
        settings=settings,
        checkpoint=checkpoint,
        catalog=catalog,
        people=people,
        num_looks_to_retry=0 if found is None else found.num_to_retry,
        plan=plan,
        index=index,
        todo=todo,
        pool=pool,
        execution=execution,
        batch_windows=batch_windows,
        block_bytes=needed_bytes,
        runs=runs,
        base_run=base_run,
        base_chunks=None if base_run is None else base_run.chunk_index(plan, catalog, settings),
        record={
            "identity": identity,
            "model": {"requested": settings.model, "pinned": model.pinned},
            "settings": settings.model_dump(mode="json")
            | {"model": checkpoint.ref.uri, "batch_windows": batch_windows},
            "runs": [asdict(run) for run in runs],
            "versions": versions(),
        },
    )


def _base_run(settings: LabelSettings) -> BaseRun | None:
    if settings.base_run is None:
        return None
    record = read_record(settings.base_run)
    if record is None:
        raise RunError(f"{settings.base_run} holds no run to reuse windows of: {RUN_FILE} is missing")
    if "summary" not in record:
        raise RunError(f"the run in {settings.base_run} is not finished: run its command again first")
    windows = settings.model_dump(mode="json", include=WINDOW_SETTINGS)
    different = differences(record["identity"], windows)
    if different:
        raise RunError(f"{settings.base_run} has other windows ({different}): none of them can be reused")
    return BaseRun.of(settings.base_run, record, settings.relabel_below)


def _people(
    settings: LabelSettings, checkpoint: Checkpoint, catalog: pa.Table, on_video: Callable[[float, float], None]
) -> FoundPeople | None:
    """Return who is labeled, or None if whole frames are."""
    source = people_source(settings, checkpoint)
    if source == "off":
        return None
    if source != "auto":
        people = people_of_list(read_people_list(source), source, catalog)
        if not settings.plan:
            write_video_people(settings.out, people)
        return FoundPeople(people, LOOKS.index_schema.empty_table())
    scale = person_scale(checkpoint)
    if settings.plan:  # which writes nothing: only what is committed counts
        return committed_people(settings.out, catalog, plan_looks(catalog, LOOKS_US, looks_digest()), scale, keep=False)
    limits = Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30))
    return find_archive_people(
        settings.out, catalog, scale, limits, retry_failed=settings.retry_failed, on_video=on_video
    )


def _num_windows(plan: pa.Table) -> int:
    return pc.sum(plan["num_windows"]).as_py() or 0


def _check_memory(settings: LabelSettings, of_block: int) -> None:
    """Raise `RunError` if decoders could not hold the frames of a block."""
    needed_gib = 2 * of_block / 2**30  # its frames, and a copy of them on their way
    if needed_gib > settings.decode_memory_gib:
        raise RunError(
            f"chunk_s ({settings.chunk_s:g}) needs {needed_gib:.1f} GiB to decode, more than decode_memory_gib "
            f"({settings.decode_memory_gib:g}): make chunks shorter, or raise the limit"
        )


def _warn_without_gpu(settings: LabelSettings, pool: LabelerPool) -> None:
    if pool.device == "GPU" and not query_labeler_node(is_available, settings, pool):
        logger.warning(
            "torch sees no GPU on a node where Ray has one, so labeling runs on its CPUs, which is slow: is the driver new "
            "enough for this build of torch (%s)?",
            torch.__version__,
        )


def _precision(settings: LabelSettings, recorded: dict[str, Any] | None, pool: LabelerPool) -> Literal["bf16", "fp32"]:
    if settings.precision != "auto":
        return settings.precision
    found = (recorded or {}).get("precision") or query_labeler_node(preferred_precision, settings, pool)
    return "bf16" if found == "bf16" else "fp32"


def _compiling_pays(
    settings: LabelSettings,
    num_windows: int,
    checkpoint: Checkpoint,
    eager: Execution,
    batch_windows: int,
    pool: LabelerPool,
) -> bool:
    min_network_s = COMPILE_COST_S / COMPILE_GAIN * pool.max_size  # below this it cannot pay
    if num_windows * MAX_WINDOW_S < min_network_s or not query_labeler_node(can_compile, settings, pool):
        return False
    return num_windows * measure_network(settings, checkpoint, eager, batch_windows, pool) > min_network_s
