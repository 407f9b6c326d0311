"""One run: an archive, a model and settings in; a ledger and published tables in one output folder out.

catalog → plan − ledger → pipeline → what the pipeline lost, tried alone → publish
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from microaction import storage
from microaction.config import LabelSettings, ModelConfig, Preprocessing, digest_of
from microaction.labeling.catalog import make_catalog, read_catalog, write_catalog
from microaction.labeling.ledger import commit, subtract_committed, subtract_tried
from microaction.labeling.pipeline import label_blocks
from microaction.labeling.plan import plan_blocks, plan_chunks
from microaction.labeling.publish import Provenance, Published, publish
from microaction.model import load_checkpoint
from microaction.model.checkpoint import require_labels
from microaction.schema import COMMITTED_CHUNK
from microaction.taxonomy import ACTIONS
from microaction.versions import versions
from microaction.video.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, microseconds

RUN_FILE = "_run.json"
CATALOG_FILE = "_catalog.parquet"
WINDOW_SETTINGS = {"window_s", "stride_s", "chunk_s"}  # what changes a chunk's windows; part of every chunk's id


class RunError(ValueError):
    """A run cannot start, or ended without an account of every chunk."""


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
    """What a run did: chunks labelled now, chunks found done, and the totals of the published tables."""

    num_chunks: int
    num_committed_before: int
    published: Published


def run_labeling(
    settings: LabelSettings, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> RunSummary:
    """Labels what the ledger of `settings.out` lacks and publishes the whole run.

    Raises `CatalogError` (no videos), `CheckpointError` (no usable model) and `RunError` before any work where the
    output belongs to another run.
    """
    checkpoint = load_checkpoint(settings.model)
    require_labels(checkpoint.config, ACTIONS, settings.model)
    provenance = Provenance(settings.model, checkpoint.digest, digest_of(settings, WINDOW_SETTINGS))
    identity = {
        "archive": settings.archive,
        "model_digest": checkpoint.digest,
        **settings.model_dump(mode="json", include=WINDOW_SETTINGS),
    }
    _refuse_other_run(settings.out, identity)

    catalog_uri = storage.join(settings.out, CATALOG_FILE)
    if settings.catalog is not None:
        catalog = read_catalog(settings.catalog)
    else:
        catalog = make_catalog(
            settings.archive,
            known=read_catalog(catalog_uri) if storage.exists(catalog_uri) else None,
            on_video=lambda done, total: on_progress(Progress("catalog", done, total)),
        )
    write_catalog(catalog, catalog_uri)
    plan = plan_chunks(catalog, microseconds(settings.chunk_s), checkpoint.digest, provenance.settings_digest)
    record: dict[str, Any] = {
        "identity": identity,
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
    }
    _write_run(settings.out, record)

    todo = subtract_committed(plan, settings.out, retry_failed=settings.retry_failed)
    _label(todo, settings, checkpoint.config.model, checkpoint.config.preprocessing, on_progress)

    on_progress(Progress("publish", 0, len(catalog)))
    published = publish(settings.out, catalog, plan, provenance, checkpoint.config.labels, settings.min_probability)
    on_progress(Progress("publish", len(catalog), len(catalog)))
    summary = RunSummary(len(todo), len(plan) - len(todo), published)
    _write_run(settings.out, record | {"summary": asdict(summary)})
    unaccounted_s = published.video_s - published.covered_s - published.failed_s
    if abs(unaccounted_s) > len(catalog) / MICROSECONDS:
        raise RunError(f"{unaccounted_s:.6f} s of video are neither labelled nor in failures/; please report this")
    return summary


def _label(
    todo: pa.Table,
    settings: LabelSettings,
    model: ModelConfig,
    preprocessing: Preprocessing,
    on_progress: Callable[[Progress], None],
) -> None:
    if len(todo) == 0:
        return
    total_us = sum(todo["chunk_end_us"].to_pylist()) - sum(todo["chunk_start_us"].to_pylist())
    progress = Progress("label", 0, len(todo), 0.0, total_us / MICROSECONDS)
    on_progress(progress)

    def follow(blocks: list[pa.Table]) -> None:
        nonlocal progress
        for committed in label_blocks(blocks, settings, model, preprocessing):
            progress = _advance(progress, committed)
            on_progress(progress)

    follow(plan_blocks(todo))
    # A block whose decoding killed its worker is gone; its chunks are tried again one by one, so that the one to blame
    # takes no other with it.
    lost = subtract_tried(todo, settings.out)
    if len(lost):
        follow([lost.slice(row, 1) for row in range(len(lost))])
        for row in subtract_tried(lost, settings.out).to_pylist():
            failure = {name: row[name] for name in COMMITTED_CHUNK.names if name in row} | {
                "decoder": DECODER,
                "window_start_us": [],
                "window_end_us": [],
                "probabilities": [],
                "stage": "decode",
                "error": "WorkerDied",
                "reason": "decoding it killed or stalled its process, alone and more than once",
            }
            commit(settings.out, pa.Table.from_pylist([failure], schema=COMMITTED_CHUNK))


def _advance(progress: Progress, committed: pa.Table) -> Progress:
    rows = committed.to_pylist()
    return Progress(
        progress.stage,
        progress.done + len(rows),
        progress.total,
        progress.video_s + sum(row["chunk_end_us"] - row["chunk_start_us"] for row in rows) / MICROSECONDS,
        progress.total_video_s,
        progress.num_windows + sum(row["num_windows"] for row in rows),
        progress.num_failed + sum(row["error"] is not None for row in rows),
    )


def _refuse_other_run(out: str, identity: dict[str, Any]) -> None:
    uri = storage.join(out, RUN_FILE)
    if not storage.exists(uri):
        return
    earlier = json.loads(storage.read_bytes(uri))["identity"]
    different = [
        f"{name}: there {earlier.get(name)!r}, now {identity[name]!r}"
        for name in identity
        if earlier.get(name) != identity[name]
    ]
    if different:
        raise RunError(
            f"{out} holds another run ({'; '.join(different)}); give another folder, or delete this one if it is not needed"
        )


def _write_run(out: str, record: dict[str, Any]) -> None:
    storage.write_bytes(storage.join(out, RUN_FILE), json.dumps(record, indent=2).encode() + b"\n")
