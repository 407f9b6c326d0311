"""One video labeled in this process, without Ray: the stages of the pipeline, one after the other."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from microaction import storage
from microaction.labeling.decoder import Decoder
from microaction.labeling.execution import BATCH_WINDOWS, Device, settings_digest
from microaction.labeling.labeler import Labeler, batch_of
from microaction.labeling.people import check_skeletons
from microaction.labeling.plan import chunk_table, plan_chunks
from microaction.labeling.probe import catalog_row
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.tables import DecisionRule, Provenance, Tables
from microaction.models import Checkpoint, load_checkpoint
from microaction.models.checkpoint import check_labels
from microaction.models.classifier import Execution, preferred_precision
from microaction.registry import resolve
from microaction.schema import CATALOG, COMMITTED_CHUNK, PUBLIC_TABLES
from microaction.settings import absolute_location, model_location
from microaction.taxonomy import ACTIONS
from microaction.video.windows import microseconds


@dataclass(frozen=True)
class LabeledVideo:
    """The labels of one video: tables as `microaction label` publishes them (`schema.WINDOWS`, `EVENTS`, `FAILURES`)."""

    windows: pa.Table
    events: pa.Table
    failures: pa.Table


def label_video(source: str | os.PathLike[str], model: str | Checkpoint, **settings: Any) -> LabeledVideo:
    """Label one video in this process, without Ray, with the same result as `microaction label`: bit for bit in float32.

    `source` is a path or URI; `model` is what `--model` takes, or a loaded checkpoint; `settings` are fields of
    `VideoLabelSettings`, such as `window_s`, `start_threshold` or `precision`. A video that cannot be read, or a part of one,
    is a row of `failures`. Raises `FileNotFoundError`, `CheckpointError`, `RegistryError`, and `ValueError` for settings that
    do not fit.
    """
    chosen = VideoLabelSettings(**settings)
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(resolve(model_location(model)))
    check_labels(checkpoint.config, ACTIONS, checkpoint.ref.uri)
    check_skeletons(chosen, checkpoint)
    catalog = _catalog(os.fspath(source))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind: Device = "GPU" if device == "cuda" else "CPU"
    precision = preferred_precision(device) if chosen.precision == "auto" else chosen.precision
    execution = Execution(precision, is_compiled=False)
    batch_windows = chosen.batch_windows or BATCH_WINDOWS[kind]
    digest = settings_digest(chosen, execution, device=kind, batch_windows=batch_windows)
    plan = plan_chunks(catalog, microseconds(chosen.chunk_s), checkpoint.digest, digest)
    rows = _labeled(chunk_table(plan, catalog), checkpoint, chosen, execution, batch_windows)
    provenance = Provenance(checkpoint.ref.uri, checkpoint.digest, digest)
    tables = Tables((provenance,), DecisionRule.of(chosen, checkpoint.config.labels))
    tables.add(catalog.to_pylist()[0], pa.concat_tables([COMMITTED_CHUNK.empty_table(), *rows]).combine_chunks())
    finished = tables.finished()
    return LabeledVideo(**{name: finished[name] for name in PUBLIC_TABLES if name != "videos"})


def _catalog(source: str) -> pa.Table:
    """Return a catalog of one video. Raises `FileNotFoundError`."""
    uri = absolute_location(source)
    if not storage.exists(uri):
        raise FileNotFoundError(f"no file at {uri}")
    (file,) = storage.list_files(uri)
    return pa.Table.from_pylist([catalog_row(file.uri, file.version, file.size_bytes)], schema=CATALOG)


def _labeled(
    chunks: pa.Table,
    checkpoint: Checkpoint,
    settings: VideoLabelSettings,
    execution: Execution,
    batch_windows: int,
) -> Iterator[pa.Table]:
    """Decode and label the chunks one by one; yield rows of `schema.COMMITTED_CHUNK`."""
    if len(chunks) == 0:
        return
    decode = Decoder.of(settings, checkpoint.config)
    label = Labeler(checkpoint.ref, execution, batch_windows, len(os.sched_getaffinity(0)))
    for chunk in chunks.to_pylist():
        yield label(batch_of([decode(chunk)]))
