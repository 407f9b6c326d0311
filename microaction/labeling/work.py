"""What a run is before any of it is done: model, catalog, plan, and how the network is run, all settled.

Whatever decides a chunk's windows or their probabilities is part of the run's identity, which its output keeps.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import ray
import torch

from microaction import storage
from microaction.config import LabelSettings, digest_of
from microaction.labeling.catalog import make_catalog, read_catalog, write_catalog
from microaction.labeling.earlier import EarlierRun
from microaction.labeling.estimate import measure_model
from microaction.labeling.ledger import read_index, subtract_committed
from microaction.labeling.pipeline import BATCH_WINDOWS, LabelerPool, block_bytes, labeler_pool
from microaction.labeling.plan import count_all_windows, plan_chunks
from microaction.labeling.record import RUN_FILE, RunError, differences, read_record, refuse_other_run
from microaction.labeling.tables import Provenance
from microaction.machines import await_machines, result_of
from microaction.model import Checkpoint, CheckpointConfig
from microaction.model.checkpoint import require_labels
from microaction.model.classifier import Execution, is_there, preferred_precision
from microaction.model.inference import can_compile
from microaction.registry import Resolved, load_model, pin, resolve
from microaction.taxonomy import ACTIONS
from microaction.versions import versions
from microaction.video.windows import microseconds

CATALOG_FILE = "_catalog.parquet"
WINDOW_SETTINGS = {"window_s", "stride_s", "chunk_s"}  # what changes a chunk's windows; part of every chunk's id
COMPILE_COST_S = 120.0  # of a labeler, generously
SLOWEST_WINDOW_S = 1.0
COMPILE_GAIN = 0.4  # of the time of a window: eager 4.7, compiled 8.3 clips/s in tests/benchmarks/RESULTS.md
LEDGER_FORMAT = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
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


def resolve_model(settings: LabelSettings) -> tuple[Resolved, str]:
    """The model, and its name that never changes. What was in production when a run began is what all of it uses,
    whatever is promoted before it ends. Raises `RegistryError`."""
    begun = read_record(settings.out)
    if begun is not None and "summary" not in begun and begun.get("model", {}).get("asked") == settings.model:
        pinned = begun["model"]["pinned"]
    else:
        pinned = pin(settings.model)
    return resolve(pinned), pinned


def prepare(settings: LabelSettings, model: Resolved, pinned: str, on_video: Callable[[int, int], None]) -> Work:
    """Settles all that decides what a run's chunks are, and takes off what is committed. `on_video(done, total)` counts
    videos that are catalogued. Raises what `run.run_labeling` raises before any work."""
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
    catalog = _catalog(settings, on_video)
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
    return Work(
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


def _catalog(settings: LabelSettings, on_video: Callable[[int, int], None]) -> pa.Table:
    uri = storage.join(settings.out, CATALOG_FILE)
    if settings.catalog is not None:
        catalog = read_catalog(settings.catalog)
    else:
        catalog = make_catalog(
            settings.archive,
            known=read_catalog(uri) if storage.exists(uri) else None,
            retry_failed=settings.retry_failed,
            on_video=on_video,
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
    what = "asking a machine that labels what it can do"
    return result_of(task, settings.machines_wait_s, what, setting="machines_wait_s")


def _compiling_pays(
    settings: LabelSettings, num_windows: int, checkpoint: Checkpoint, precision: Any, pool: LabelerPool
) -> bool:
    # Of labelers' time, below which it cannot.
    least_s = COMPILE_COST_S / COMPILE_GAIN * pool.max_size
    if num_windows * SLOWEST_WINDOW_S < least_s or not _asked(can_compile, settings, pool):
        return False
    return num_windows * measure_model(settings, checkpoint.config, Execution(precision, False)) > least_s
