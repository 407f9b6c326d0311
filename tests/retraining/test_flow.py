"""The steps of a retraining and what stops them, with stand-ins for training and evaluation; test_run.py has the real ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch

from microaction import registry
from microaction.cli.retrain import describe
from microaction.clips.manifest import read_list
from microaction.errors import UsageError
from microaction.evaluation.report import predictions_table
from microaction.evaluation.settings import EvaluateSettings
from microaction.registry import RegistryError
from microaction.retraining import comparison, run
from microaction.retraining.run import RetrainingResult, run_retraining
from microaction.retraining.settings import RetrainSettings
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.storage.lease import LeaseHeldError, hold_lease
from microaction.taxonomy import ACTIONS
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from tests.models.networks import people_checkpoint
from tests.retraining.clips import list_clips, mislabeled

GATES = {"f1_mean_margin": -0.1, "class_f1_margin": 0.3, "calibration_margin": 0.3, "min_support": 2, "min_held_out": 8}
TRAIN, VALIDATION, NEW = "abcd", "ef", "ghijkl"


def write_checkpoint(folder: Path, model: str, bias: float, rows: list[dict[str, Any]]) -> str:
    """Write a checkpoint as training does; each `bias` makes another model, `rows` are the clips that it was made from."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["action.bias"] += bias
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    (folder / CLIPS_FILE).write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)))
    return str(folder)


def row(name: str, label: int, split: str) -> dict[str, Any]:
    return {"name": name, "label": label, "subject": name[0], "split": split, "is_readable": True}


def rows_of(lines: list[str], split: str) -> list[dict[str, Any]]:
    return [row(name, int(label), split) for name, label in (line.split() for line in lines)]


class StandIns:
    """Training that returns at once, and evaluations with known results.

    `num_wrong` are the held-out clips that each model predicts wrongly, `unreadable` the names of clips that an evaluation
    leaves out.
    """

    def __init__(self, model: str) -> None:
        self.model, self.trained = model, list[TrainSettings]()
        self.num_wrong = {"candidate": 0, "production": 2}
        self.unreadable: dict[str, set[str]] = {"candidate": set(), "production": set()}

    def run_training(
        self, settings: TrainSettings, *, on_progress: Callable[[TrainingProgress], None]
    ) -> TrainingResult:
        self.trained.append(settings)
        on_progress(TrainingProgress(1, 1, 1, 1, 0.5))
        splits = dict(zip(("train", "validation"), read_splits(settings), strict=True))
        rows = [row(clip.name, clip.label, split) for split, clips in splits.items() for clip in clips]
        best = Path(settings.storage_path, settings.name, "best")
        return TrainingResult(write_checkpoint(best, self.model, 1.0, rows), {}, "")

    def run_evaluation(self, settings: EvaluateSettings, *, on_progress: Callable[[tuple[int, int]], None]) -> None:
        kind = Path(settings.out).name
        clips = read_list(settings.clips_list, settings.videos, len(ACTIONS))
        clips = [clip for clip in clips if clip.name not in self.unreadable[kind]]
        target_N = np.array([clip.label for clip in clips])
        predicted_N = np.where(np.arange(len(clips)) < self.num_wrong[kind], target_N + 1, target_N)
        probabilities_NK = np.full((len(clips), len(ACTIONS)), 0.1 / (len(ACTIONS) - 1))
        probabilities_NK[np.arange(len(clips)), predicted_N] = 0.9
        Path(settings.out).mkdir(parents=True, exist_ok=True)
        table = predictions_table([clip.name for clip in clips], probabilities_NK, target_N)
        Path(settings.out, "predictions.parquet").write_bytes(table)
        on_progress((len(clips), len(clips)))


@pytest.fixture
def stand_ins(model: str, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    stand_ins = StandIns(model)
    monkeypatch.setattr(run, "run_training", stand_ins.run_training)
    monkeypatch.setattr(comparison, "run_evaluation", stand_ins.run_evaluation)
    monkeypatch.setattr(run, "parity_for_labeling", lambda *_: 0.01)
    return stand_ins


@pytest.fixture
def models(model: str, tmp_path: Path) -> str:
    """A registry whose version `first` is in production: trained on `TRAIN`, validated on `VALIDATION`."""
    rows = rows_of(list_clips(TRAIN), "train") + rows_of(list_clips(VALIDATION), "validation")
    models = str(tmp_path / "models")
    registry.register(models, write_checkpoint(tmp_path / "first", model, 0.0, rows), name="first")
    registry.promote(models, "first", reason="the first")
    return models


@pytest.fixture
def retrain(models: str, stand_ins: StandIns, tmp_path: Path) -> Callable[..., RetrainingResult]:
    """Retrain on a dataset that production knows, and on what is in `labels/`."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/list.txt").write_text("".join(list_clips(TRAIN + VALIDATION)))
    (tmp_path / "labels").mkdir()

    def run(**changes: object) -> RetrainingResult:
        fields = {
            "registry": models,
            "dataset": str(tmp_path / "dataset"),
            "labels": str(tmp_path / "labels"),
            "work": str(tmp_path / "work"),
            "min_new": 8,
            "gates": GATES,
        }
        return run_retraining(RetrainSettings.model_validate(fields | changes))

    return run


Retrain = Callable[..., RetrainingResult]


def add_labels(tmp_path: Path, lines: list[str]) -> None:
    number = len(list((tmp_path / "labels").iterdir())) + 1
    (tmp_path / f"labels/{number}.txt").write_text("".join(lines))


def test_too_few_new_clips_end_it_at_once(retrain: Retrain, stand_ins: StandIns) -> None:
    result = retrain()
    assert (result.ended, result.delta.num_clips, result.version) == ("too few new clips", 0, "first")
    assert stand_ins.trained == []
    assert "first stays in production: 0 new and 0 corrected clips, fewer than min_new (8)" in describe(result, 8)


def test_a_production_that_sees_skeletons_is_refused(
    retrain: Retrain, stand_ins: StandIns, models: str, tmp_path: Path
) -> None:
    rows = rows_of(list_clips(TRAIN), "train") + rows_of(list_clips(VALIDATION), "validation")
    pcan = Path(people_checkpoint(tmp_path, "pcan"))
    (pcan / CLIPS_FILE).write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)))
    registry.register(models, str(pcan), name="pcan")
    registry.promote(models, "pcan", reason="it sees more")
    add_labels(tmp_path, list_clips(NEW))
    with pytest.raises(
        UsageError, match="pcan sees the skeletons of people, which the lists of a retraining do not have"
    ):
        retrain()
    assert stand_ins.trained == []


def test_a_worse_candidate_is_rejected_once_and_for_all(
    retrain: Retrain, stand_ins: StandIns, models: str, tmp_path: Path
) -> None:
    add_labels(tmp_path, mislabeled(list_clips(TRAIN)))
    stand_ins.num_wrong["candidate"] = 12
    rejected = retrain()
    assert (rejected.ended, rejected.version) == ("rejected", "first")
    assert (rejected.delta.num_new, rejected.delta.num_corrected) == (0, len(list_clips(TRAIN)))
    assert "F1 mean" in rejected.failed_gates
    page = Path(rejected.page).read_text()
    assert "<h1>Rejected</h1>" in page
    assert "Most changed confusions" in page
    assert registry.production(models).version == "first"
    assert len(stand_ins.trained) == 1
    stand_ins.num_wrong["candidate"] = 0
    assert retrain() == rejected, "what is decided stays decided"
    assert len(stand_ins.trained) == 1


def test_a_better_candidate_is_promoted(retrain: Retrain, stand_ins: StandIns, models: str, tmp_path: Path) -> None:
    new = list_clips(NEW)
    add_labels(tmp_path, new)
    promoted = retrain()
    assert promoted.ended == "promoted", promoted.failed_gates
    assert (promoted.delta.num_new, promoted.delta.num_corrected) == (len(new), 0)
    assert registry.production(models).version == promoted.version != "first"
    (settings,) = stand_ins.trained
    assert settings.init == f"{models}/first"
    version = registry.read_version(models, promoted.version)
    assert version.notes["made from"] == "first"
    assert set(version.data["held-out"].subjects) >= set(VALIDATION), "they have never been trained on"
    assert not set(version.data["held-out"].subjects) & set(version.data["train"].subjects)
    assert "<h1>Promoted</h1>" in Path(promoted.page).read_text()
    again = retrain()
    assert again.ended == "too few new clips"
    assert "stays in production: 0 new and 0 corrected clips" in describe(again, 8)
    assert registry.rollback(models, reason="worse in practice").version == "first"
    after = retrain()
    assert (after.ended, after.delta.num_clips) == ("too few new clips", 0), "a rollback is not undone by itself"
    assert registry.production(models).version == "first"


def test_clips_that_either_model_cannot_read_are_left_out(
    retrain: Retrain, stand_ins: StandIns, tmp_path: Path
) -> None:
    add_labels(tmp_path, list_clips(NEW))
    stand_ins.unreadable = {"candidate": {"e_00.mp4"}, "production": {"f_00.mp4"}}
    assert "2 more could not be read." in Path(retrain().page).read_text()


def test_clips_of_rolled_back_versions_are_not_new(retrain: Retrain, models: str, model: str, tmp_path: Path) -> None:
    new = list_clips("ghij")
    add_labels(tmp_path, new)
    known = rows_of(list_clips(TRAIN), "train") + rows_of(list_clips(VALIDATION), "validation")
    # Two versions, as if retraining had made them: one was trained on half of the new clips, the later one on the other half.
    for number, (version, half) in enumerate((("second", new[:16]), ("third", new[16:])), start=1):
        checkpoint = write_checkpoint(tmp_path / version, model, number / 10, known + rows_of(half, "train"))
        registry.register(models, checkpoint, name=version)
        registry.promote(models, version, reason="newer")
    for version in ("second", "first"):
        assert registry.rollback(models, reason="worse").version == version
        result = retrain()
        assert (result.ended, result.version, result.delta.num_clips) == ("too few new clips", version, 0)


STEPS = [(comparison, "run_evaluation"), (run, "write_page"), (registry, "register"), (registry, "promote")]


def test_a_retraining_continues_wherever_it_was_killed(
    retrain: Retrain, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_labels(tmp_path, list_clips(NEW))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for owner, name in STEPS:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(KeyboardInterrupt):
                retrain()
        assert registry.production(models).version == "first"
    assert retrain().ended == "promoted"
    assert len(registry.history(models)) == 2
    assert len(registry.list_versions(models)) == 2


def test_a_production_that_changed_meanwhile_is_kept(
    retrain: Retrain, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_labels(tmp_path, list_clips(NEW))
    register = registry.register

    def promote_another(*arguments: Any, **how: Any) -> Any:
        registry.promote(models, "first", reason="by hand")
        return register(*arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", promote_another)
        with pytest.raises(RegistryError, match=r"has changed meanwhile: first is in production since .* \(by hand\)"):
            retrain()
    assert registry.production(models).version == "first"
    assert retrain().ended == "promoted"


def test_a_decision_about_another_candidate_does_not_count(
    retrain: Retrain, stand_ins: StandIns, tmp_path: Path
) -> None:
    add_labels(tmp_path, list_clips(NEW))
    stand_ins.num_wrong["candidate"] = 12
    rejected = retrain()
    decision = Path(rejected.page).with_name("decision.json")
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"candidate": "0" * 64}))
    stand_ins.num_wrong["candidate"] = 0
    assert retrain().ended == "promoted"


def test_only_one_retraining_of_a_registry_runs(retrain: Retrain, models: str) -> None:
    with (
        hold_lease(f"{models}/_retrain"),
        pytest.raises(LeaseHeldError, match=r"is running in .*/models: wait") as raised,
    ):
        retrain()
    assert raised.value.exit_code == 1, "the same command works later"
    assert retrain().ended == "too few new clips"
