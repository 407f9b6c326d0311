"""One retraining: new labels in; a new model in production out, or a page that says why not.

production → what is new → train → candidate and production on the same held-out subjects → gates → register → promote

All of it depends on the data, on what is in production and on the settings alone: the same command again, whatever interrupted
it, continues in the same folder, and what is decided once stays decided.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch

from microaction import registry, storage
from microaction.clips.manifest import Clip
from microaction.distributed.resources import cluster_resources
from microaction.distributed.settings import CLUSTER_FIELDS
from microaction.distributed.waiting import get_or_cancel
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.models import load_checkpoint
from microaction.registry import Version
from microaction.retraining.data import (
    HELD_OUT,
    DataDelta,
    absent_clips,
    delta_since,
    hold_out,
    list_file,
    read_dataset,
)
from microaction.retraining.gates import Verdict, golden_parity, judge
from microaction.retraining.page import Comparison, write_page
from microaction.retraining.settings import RetrainSettings
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.settings import digest_of
from microaction.storage.lease import hold_lease
from microaction.taxonomy import ACTIONS
from microaction.training.progress import TrainingProgress
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings

LEASE_FOLDER = "_retrain"
DECISION_FILE = "decision.json"
PAGE_FILE = "decision.html"
RUN_NAME = "training"
KEY_DIGITS = 12
IRRELEVANT_FIELDS = {
    *CLUSTER_FIELDS,
    *("config", "work", "num_workers", "min_workers", "max_failures", "checkpoint_interval_s"),
}


@dataclass(frozen=True)
class RetrainingResult:
    """How a retraining ended. `version` is in production now; `page` says why, and is empty if nothing was trained."""

    ended: Literal["too few new clips", "promoted", "rejected"]
    version: str
    delta: DataDelta
    page: str = ""
    failed_gates: tuple[str, ...] = ()


def run_retraining(
    settings: RetrainSettings,
    *,
    on_training: Callable[[TrainingProgress], None] = lambda progress: None,
    on_evaluation: Callable[[tuple[int, int]], None] = lambda progress: None,
) -> RetrainingResult:
    """Retrain, judge and promote, if there are enough new clips. Needs a running Ray.

    Raises `LeaseHeldError` while another retraining works on the registry, `RegistryError` if nothing is in production or it has
    changed meanwhile, and what training and evaluation raise.
    """
    with hold_lease(storage.join(settings.registry, LEASE_FOLDER)) as lease:
        change = registry.production(settings.registry)
        production = registry.read_version(settings.registry, change.version)
        clips = read_dataset(settings.dataset, settings.labels, len(ACTIONS))
        known = registry.read_clips_of(settings.registry, production.name)
        # What was rolled back was not good enough: what it was trained on is nothing new to try.
        rolled_back = [
            registry.read_clips_of(settings.registry, name) for name in registry.rolled_back(settings.registry)
        ]
        delta = delta_since([known, *rolled_back], clips)
        if delta.num_clips < settings.min_new:
            return RetrainingResult("too few new clips", production.name, delta)
        train, judged = hold_out(known, clips, settings.held_out_fraction)
        folder = storage.join(settings.work, _key(settings, production, clips))
        page_uri = storage.join(folder, PAGE_FILE)
        candidate = storage.join(folder, RUN_NAME, "best")
        verdicts = _read_decision(folder, candidate)
        if verdicts is None:

            def on_step(progress: TrainingProgress) -> None:
                lease.check(refresh=False)
                on_training(progress)

            candidate = _train(settings, production, train, folder, on_step)
            _remember_subjects(candidate, judged, known)
            lease.check()
            verdicts = _judge(settings, production, candidate, judged, delta, folder, on_evaluation)
        failed = tuple(verdict.gate for verdict in verdicts if not verdict.is_passed)
        if failed:
            return RetrainingResult("rejected", production.name, delta, page_uri, failed)
        lease.check()
        notes = {"made from": production.name, "decision": page_uri, "gates": [asdict(verdict) for verdict in verdicts]}
        version = registry.register(settings.registry, candidate, notes=notes)
        reason = f"{delta.num_new} new and {delta.num_corrected} corrected clips; see {page_uri}"
        registry.promote(settings.registry, version.name, reason=reason, after=change.number)
        return RetrainingResult("promoted", version.name, delta, page_uri)


def _key(settings: RetrainSettings, production: Version, clips: Sequence[Clip]) -> str:
    """Return a digest of all that decides how a retraining ends."""
    decides = set(RetrainSettings.model_fields) - IRRELEVANT_FIELDS
    listed = [[clip.name, clip.label, clip.subject, clip.uri, clip.region] for clip in clips]
    return digest_of(settings, decides, production=production.digest, clips=listed)[:KEY_DIGITS]


def _train(
    settings: RetrainSettings,
    production: Version,
    train: Sequence[Clip],
    folder: str,
    on_training: Callable[[TrainingProgress], None],
) -> str:
    """Return the candidate's checkpoint directory."""
    train_list = storage.join(folder, "train.parquet")
    storage.write_bytes(train_list, list_file(train))
    production_uri = storage.join(settings.registry, production.name)
    config = load_checkpoint(production.ref(settings.registry)).config
    shared = settings.model_dump(include=set(TrainSettings.model_fields) & set(RetrainSettings.model_fields))
    train_settings = TrainSettings.model_validate(
        shared
        | {
            "train_list": train_list,
            "train_videos": storage.join(settings.dataset, "videos"),
            "split_by": "subject",
            "storage_path": folder,
            "name": RUN_NAME,
            "model": config.model,
            "preprocessing": config.preprocessing,
            "init": production_uri if settings.start == "production" else None,
            "config": None,
        }
    )
    return run_training(train_settings, on_progress=on_training).checkpoint


def _judge(
    settings: RetrainSettings,
    production: Version,
    candidate: str,
    judged: Sequence[Clip],
    delta: DataDelta,
    folder: str,
    on_evaluation: Callable[[tuple[int, int]], None],
) -> list[Verdict]:
    """Evaluate both, write the page and then the decision."""
    clips_list = storage.join(folder, f"{HELD_OUT}.parquet")
    storage.write_bytes(clips_list, list_file(judged))
    models = {"candidate": candidate, "production": f"{settings.registry}@{production.name}"}
    predictions = [
        _predictions(settings, model, clips_list, storage.join(folder, name), on_evaluation)
        for name, model in models.items()
    ]
    ours, theirs = read_by_both(*predictions)
    target_N = ours["target"].to_numpy()
    candidate_NK, production_NK = (np.stack(table["probabilities"].to_numpy()) for table in (ours, theirs))
    parity = parity_for_labeling(candidate, settings)
    verdicts = judge(candidate_NK, production_NK, target_N, ACTIONS, parity, settings.gates)
    num_left_out = len(judged) - len(target_N)
    comparison = Comparison(production.name, delta, candidate_NK, production_NK, target_N, num_left_out)
    write_page(storage.join(folder, PAGE_FILE), comparison, verdicts, settings)
    decision = {"candidate": load_checkpoint(candidate).digest, "gates": [asdict(verdict) for verdict in verdicts]}
    storage.write_bytes(storage.join(folder, DECISION_FILE), json.dumps(decision, indent=2).encode() + b"\n")
    return verdicts


def _predictions(
    settings: RetrainSettings,
    model: str,
    clips_list: str,
    out: str,
    on_evaluation: Callable[[tuple[int, int]], None],
) -> pa.Table:
    """Evaluate a model on the held-out clips; return its predictions."""
    run_evaluation(
        EvaluateSettings(
            model=model,
            clips_list=clips_list,
            videos=storage.join(settings.dataset, "videos"),
            out=out,
            max_unreadable_fraction=settings.max_unreadable_fraction,
            **settings.model_dump(include=set(CLUSTER_FIELDS)),
        ),
        on_progress=on_evaluation,
    )
    return pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(out, "predictions.parquet"))))


def read_by_both(ours: pa.Table, theirs: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the predictions for the clips that are in both tables, in one order: each evaluation leaves out what it could not
    read."""
    ours_too = ours.filter(pc.is_in(ours["clip"], theirs["clip"].combine_chunks()))
    theirs_too = theirs.filter(pc.is_in(theirs["clip"], ours["clip"].combine_chunks()))
    return ours_too.sort_by("clip"), theirs_too.sort_by("clip")


def parity_for_labeling(candidate: str, settings: RetrainSettings) -> float:
    """Return `golden_parity` on what labeling would run on: a GPU if the cluster has any, otherwise the CPU here. Raises
    `NodesUnavailableError`."""
    if cluster_resources(settings).num_gpus == 0:
        return golden_parity(candidate, "cpu")
    parity = ray.remote(num_gpus=1)(_parity_on_gpu).remote(candidate)
    what = f"comparing the golden output of {candidate} on a GPU"
    return float(get_or_cancel(parity, settings.node_wait_s, what, setting="node_wait_s"))


def _parity_on_gpu(candidate: str) -> float:
    return golden_parity(candidate, "cuda" if torch.cuda.is_available() else "cpu")


def _read_decision(folder: str, candidate: str) -> list[Verdict] | None:
    """Return what an earlier start decided about this candidate."""
    try:
        decision = json.loads(storage.read_bytes(storage.join(folder, DECISION_FILE)))
    except FileNotFoundError:
        return None
    if decision["candidate"] != load_checkpoint(candidate).digest:
        return None
    return [Verdict(**verdict) for verdict in decision["gates"]]


def _remember_subjects(candidate: str, judged: Sequence[Clip], known: pa.Table) -> None:
    """Record who was held out, and whom production was trained on or held out that the dataset lacks now."""
    uri = storage.join(candidate, CLIPS_FILE)
    trained = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).cast(TRAINING_CLIPS)
    if HELD_OUT in trained["split"].to_pylist():
        return
    rows = [
        {"name": clip.name, "label": clip.label, "subject": clip.subject, "split": HELD_OUT, "is_readable": True}
        for clip in judged
    ]
    table = pa.concat_tables([trained, pa.Table.from_pylist(rows, TRAINING_CLIPS)])
    storage.write_bytes(uri, parquet_bytes(pa.concat_tables([table, absent_clips(known, table)])))
