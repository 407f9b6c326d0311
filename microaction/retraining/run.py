"""One retraining: new labels in; a new model in production out, or a page that says why not.

production → what is new → train → candidate and production on the same held-out subjects → gates → register → promote

All of it depends on the data, on what is in production and on the settings alone: the same command again, whatever interrupted
it, continues in the same folder, and what is decided once stays decided.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import registry, storage
from microaction.clips.manifest import Clip
from microaction.distributed.settings import CLUSTER_FIELDS
from microaction.errors import UsageError
from microaction.models import load_checkpoint
from microaction.registry import Version
from microaction.retraining.attempt import RUN_NAME, Attempt
from microaction.retraining.comparison import compare, parity_for_labeling
from microaction.retraining.data import (
    HELD_OUT,
    VIDEOS_FOLDER,
    DataDelta,
    absent_clips,
    delta_since,
    hold_out,
    list_file,
    read_dataset,
)
from microaction.retraining.detection import (
    compare_detectors,
    compared_detectors,
    instance_file,
    judge_detectors,
)
from microaction.retraining.gates import Verdict, judge
from microaction.retraining.page import compared_classifiers, write_page
from microaction.retraining.settings import RetrainSettings
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.settings import digest_of
from microaction.storage.lease import hold_lease
from microaction.taxonomy import ACTIONS
from microaction.training.progress import TrainingProgress
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings

LEASE_FOLDER = "_retrain"
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
    changed meanwhile, `UsageError` if what is in production needs skeletons, and what training and evaluation raise.
    """
    with hold_lease(storage.join(settings.registry, LEASE_FOLDER)) as lease:
        change = registry.production(settings.registry)
        production = registry.read_version(settings.registry, change.version)
        clips = read_dataset(settings.dataset, settings.labels, len(ACTIONS))
        known = registry.read_clips_of(settings.registry, production.name)
        # A version that was rolled back was not good enough: to train on its clips again is no progress.
        rolled_back = [
            registry.read_clips_of(settings.registry, name) for name in registry.rolled_back(settings.registry)
        ]
        delta = delta_since([known, *rolled_back], clips)
        if delta.num_clips < settings.min_new:
            return RetrainingResult("too few new clips", production.name, delta)
        train, judged = hold_out(known, clips, settings.held_out_fraction)
        folder = storage.join(settings.work, _key(settings, production, clips))
        attempt = Attempt(settings, production, delta, folder)
        verdicts = _read_decision(attempt)
        if verdicts is None:

            def on_step(progress: TrainingProgress) -> None:
                lease.check(refresh=False)
                on_training(progress)

            _train(attempt, train, on_step)
            _record_subjects(attempt.candidate_uri, judged, known)
            lease.check()
            verdicts = _judge(attempt, judged, on_evaluation)
        failed = tuple(verdict.gate for verdict in verdicts if not verdict.is_passed)
        if failed:
            return RetrainingResult("rejected", production.name, delta, attempt.page_uri, failed)
        lease.check()
        notes = {
            "made from": production.name,
            "decision": attempt.page_uri,
            "gates": [asdict(verdict) for verdict in verdicts],
        }
        version = registry.register(settings.registry, attempt.candidate_uri, notes=notes)
        reason = f"{delta.num_new} new and {delta.num_corrected} corrected clips; see {attempt.page_uri}"
        registry.promote(settings.registry, version.name, reason=reason, after=change.number)
        return RetrainingResult("promoted", version.name, delta, attempt.page_uri)


def _key(settings: RetrainSettings, production: Version, clips: Sequence[Clip]) -> str:
    """Return a digest of all that decides how a retraining ends."""
    decides = set(RetrainSettings.model_fields) - IRRELEVANT_FIELDS
    listed = [[clip.name, clip.label, clip.subject, clip.uri, clip.region] for clip in clips]
    return digest_of(settings, decides, production=production.digest, clips=listed)[:KEY_DIGITS]


def _train(attempt: Attempt, train: Sequence[Clip], on_training: Callable[[TrainingProgress], None]) -> None:
    """Train the candidate."""
    settings, production = attempt.settings, attempt.production
    train_list = storage.join(attempt.folder, "train.parquet")
    config = load_checkpoint(production.ref(settings.registry)).config
    write = instance_file if config.task == "detection" else list_file
    storage.write_bytes(train_list, write(train))
    if config.needs_skeletons:
        raise UsageError(
            f"{production.name} sees the skeletons of people, which the lists of a retraining do not have: train one "
            "(`microaction train`) and promote the result"
        )
    shared = settings.model_dump(include=set(TrainSettings.model_fields) & set(RetrainSettings.model_fields))
    train_settings = TrainSettings.model_validate(
        shared
        | {
            "train_list": train_list,
            "train_videos": storage.join(settings.dataset, VIDEOS_FOLDER),
            "split_by": "subject",
            "storage_path": attempt.folder,
            "name": RUN_NAME,
            "model": config.model,
            "preprocessing": config.preprocessing,
            "task": config.task,
            "init": storage.join(settings.registry, production.name) if settings.start == "production" else None,
            "recipe": settings.recipe.model_dump(exclude_unset=True),  # the rest is that of the network's recipe
            "config": None,
        }
    )
    run_training(train_settings, on_progress=on_training)


def _judge(attempt: Attempt, judged: Sequence[Clip], on_evaluation: Callable[[tuple[int, int]], None]) -> list[Verdict]:
    """Compare both models on the held-out clips, write the page and then the decision."""
    settings, candidate = attempt.settings, attempt.candidate_uri
    parity = parity_for_labeling(candidate, settings)
    if load_checkpoint(candidate).config.task == "detection":
        of_detectors = compare_detectors(attempt, judged, on_evaluation)
        verdicts, compared = judge_detectors(of_detectors, parity, settings.gates), compared_detectors(of_detectors)
    else:
        comparison = compare(attempt, judged, on_evaluation)
        verdicts, compared = judge(comparison, ACTIONS, parity, settings.gates), compared_classifiers(comparison)
    write_page(attempt, compared, verdicts)
    decision = {"candidate": load_checkpoint(candidate).digest, "gates": [asdict(verdict) for verdict in verdicts]}
    storage.write_bytes(attempt.decision_uri, json.dumps(decision, indent=2).encode() + b"\n")
    return verdicts


def _read_decision(attempt: Attempt) -> list[Verdict] | None:
    """Return what an earlier start decided about this candidate."""
    try:
        decision = json.loads(storage.read_bytes(attempt.decision_uri))
    except FileNotFoundError:
        return None
    if decision["candidate"] != load_checkpoint(attempt.candidate_uri).digest:
        return None
    return [Verdict(**verdict) for verdict in decision["gates"]]


def _record_subjects(candidate: str, judged: Sequence[Clip], known: pa.Table) -> None:
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
