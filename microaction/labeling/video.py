"""One video labeled in this process, without Ray: the stages of the pipeline, one after the other."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from microaction import storage
from microaction.labeling.decoder import Decoder
from microaction.labeling.execution import BATCH_STEPS, BATCH_WINDOWS, Device, detection_head, settings_digest
from microaction.labeling.feature_labeler import FeatureLabeler
from microaction.labeling.grid import is_detector, of_task, reach_us, warn_of_unused, window_grid
from microaction.labeling.labeler import Labeler, batch_of
from microaction.labeling.looks import LOOKS_US, Looker, looks_digest
from microaction.labeling.people import people_key, people_of_looks, people_source, person_scale
from microaction.labeling.people_list import people_of_list, read_people_list
from microaction.labeling.plan import chunk_table, plan_chunks, plan_looks
from microaction.labeling.probe import catalog_row
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.skeletons import check_skeletons
from microaction.labeling.tables import DecisionRule, Provenance, Tables
from microaction.models import Checkpoint, load_checkpoint
from microaction.models.checkpoint import check_labels
from microaction.models.classifier import Execution, preferred_precision
from microaction.registry import resolve
from microaction.schema import CATALOG, COMMITTED_CHUNK, PUBLIC_TABLES, VIDEO_PEOPLE
from microaction.settings import absolute_location, model_location
from microaction.taxonomy import ACTIONS
from microaction.video.sandbox import Limits


@dataclass(frozen=True)
class LabeledVideo:
    """The labels of one video: tables as `microaction label` publishes them (`schema.PUBLIC_TABLES`)."""

    windows: pa.Table
    activity: pa.Table
    events: pa.Table
    people: pa.Table
    failures: pa.Table


def label_video(source: str | os.PathLike[str], model: str | Checkpoint, **settings: Any) -> LabeledVideo:
    """Label one video in this process, without Ray, with the same result as `microaction label`: bit for bit in float32.

    `source` is a path or URI; `model` is what `--model` takes, or a loaded checkpoint; `settings` are fields of
    `VideoLabelSettings`, such as `window_s`, `start_threshold` or `precision`. A video that cannot be read, or a part of one,
    is a row of `failures`. Raises `FileNotFoundError`, `CheckpointError`, `RegistryError`, and `ValueError` for settings that
    do not fit.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(resolve(model_location(model)))
    chosen = VideoLabelSettings(**settings)
    warn_of_unused(chosen, checkpoint.config)
    chosen = of_task(chosen, checkpoint.config)
    check_labels(checkpoint.config, ACTIONS, checkpoint.ref.uri)
    check_skeletons(chosen, checkpoint)
    catalog = _catalog(os.fspath(source))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind: Device = "GPU" if device == "cuda" else "CPU"
    precision = preferred_precision(device) if chosen.precision == "auto" else chosen.precision
    execution = Execution(precision, is_compiled=False)
    batches = BATCH_STEPS if is_detector(checkpoint.config) else BATCH_WINDOWS
    batch_windows = chosen.batch_windows or batches[kind]
    digest = settings_digest(chosen, execution, device=kind, batch_windows=batch_windows)
    people = _people(chosen, checkpoint, catalog)
    grid, reach = window_grid(chosen, checkpoint.config), reach_us(checkpoint.config)
    plan = plan_chunks(catalog, chosen, checkpoint.digest, digest, people, grid=grid, reach_us=reach)
    rows = _labeled(chunk_table(plan, catalog, reach_us=reach), checkpoint, chosen, execution, batch_windows)
    provenance = Provenance(checkpoint.ref.uri, checkpoint.digest, digest)
    rule = DecisionRule.of(chosen, checkpoint.config)
    tables = Tables((provenance,), rule, detection_head(checkpoint))
    committed = pa.concat_tables([COMMITTED_CHUNK.empty_table(), *rows]).combine_chunks()
    tables.add(catalog.to_pylist()[0], committed, people.to_pylist()[0] if people is not None and len(people) else None)
    finished = tables.finished()
    return LabeledVideo(**{name: finished[name] for name in PUBLIC_TABLES if name != "videos"})


def _catalog(source: str) -> pa.Table:
    """Return a catalog of one video. Raises `FileNotFoundError`."""
    uri = absolute_location(source)
    if not storage.exists(uri):
        raise FileNotFoundError(f"no file at {uri}")
    (file,) = storage.list_files(uri)
    return pa.Table.from_pylist([catalog_row(file.uri, file.version, file.size_bytes)], schema=CATALOG)


def _people(settings: VideoLabelSettings, checkpoint: Checkpoint, catalog: pa.Table) -> pa.Table | None:
    """Return who is labeled: a table of `schema.VIDEO_PEOPLE`, or None if the whole frame is."""
    source = people_source(settings, checkpoint)
    if source == "off":
        return None
    if source != "auto":
        return people_of_list(read_people_list(source), source, catalog, is_of_archive=False)
    plan = plan_looks(catalog, LOOKS_US, looks_digest())
    looker = Looker(Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)))
    parts = [looker(row) for row in chunk_table(plan, catalog).to_pylist()]
    if not parts:
        return VIDEO_PEOPLE.empty_table()
    scale = person_scale(checkpoint)
    video = catalog.to_pylist()[0]
    people = people_of_looks(video, parts, scale, people_key(video, parts, scale))
    return pa.Table.from_pylist([people], schema=VIDEO_PEOPLE)


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
    kind = FeatureLabeler if is_detector(checkpoint.config) else Labeler
    label = kind(checkpoint.ref, execution, batch_windows, len(os.sched_getaffinity(0)))
    for chunk in chunks.to_pylist():
        yield label(batch_of([decode(chunk)]))
