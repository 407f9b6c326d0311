"""Whole retrainings on a local Ray, with clips that a small network learns within seconds; test_flow.py has each step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from microaction import registry
from microaction.cli.retrain import describe
from microaction.evaluation.run import Evaluation, run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.registry import RegistryError
from microaction.retraining import comparison, run
from microaction.retraining.run import RetrainingResult, run_retraining
from microaction.retraining.settings import RetrainSettings
from microaction.schema import parquet_bytes
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, run_training
from microaction.training.settings import TrainSettings
from tests.retraining.clips import RECIPE, TINY, mislabeled, write_clips

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(1800),
]

Retrain = Callable[..., RetrainingResult]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, str]:
    """A dataset of six people, and a checkpoint that was trained on them."""
    root = tmp_path_factory.mktemp("retraining")
    (root / "dataset").mkdir()
    (root / "dataset/list.txt").write_text("".join(write_clips(root / "dataset", "abcdef")))
    settings = {
        "train_list": f"{root}/dataset/list.txt",
        "train_videos": f"{root}/dataset/videos",
        "split_by": "subject",
        "val_fraction": 0.3,
        "storage_path": f"{root}/runs",
        "name": "first",
        "recipe": RECIPE,
    }
    return root / "dataset", run_training(TrainSettings.model_validate(TINY | settings)).checkpoint


@pytest.fixture
def retrain(first: tuple[Path, str], tmp_path: Path) -> Retrain:
    """Retrain on what is in `labels/`; a registry beside it holds the first checkpoint."""
    dataset, checkpoint = first
    registered = registry.register(str(tmp_path / "models"), checkpoint, name="first")
    registry.promote(str(tmp_path / "models"), registered.name, reason="the first")
    (tmp_path / "labels").mkdir()

    def run(**changes: object) -> RetrainingResult:
        fields = {
            "registry": str(tmp_path / "models"),
            "dataset": str(dataset),
            "labels": str(tmp_path / "labels"),
            "work": str(tmp_path / "work"),
            "min_new": 8,
            "val_fraction": 0.2,
            "recipe": RECIPE,
            "gates": {
                "f1_mean_margin": -0.1,
                "class_f1_margin": 0.3,
                "calibration_margin": 0.3,
                "min_support": 2,
                "min_held_out": 8,
            },
        }
        return run_retraining(RetrainSettings.model_validate(fields | changes))

    return run


def lose_a_clip(settings: EvaluateSettings, **how: Any) -> Evaluation:
    """Evaluate, but leave a clip out of the candidate's predictions, as if it could not be read."""
    evaluation = run_evaluation(settings, **how)
    predictions = Path(settings.out, "predictions.parquet")
    if settings.out.endswith("/candidate"):
        predictions.write_bytes(parquet_bytes(pq.read_table(predictions).slice(1)))
    return evaluation


def test_a_worse_candidate_is_rejected_and_a_better_one_promoted_despite_kills(
    retrain: Retrain, first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, labels = str(tmp_path / "models"), tmp_path / "labels"
    nothing = retrain()
    assert (nothing.ended, nothing.delta.num_clips, nothing.version) == ("too few new clips", 0, "first")

    # The labels of all people that production was trained on are mixed up.
    trained_on = set(registry.read_version(models, "first").data["train"].subjects)
    lines = [line for line in (first[0] / "list.txt").read_text().splitlines() if line[0] in trained_on]
    (labels / "1.txt").write_text("".join(mislabeled(lines)))
    rejected = retrain()
    assert (rejected.ended, rejected.version) == ("rejected", "first")
    assert (rejected.delta.num_new, rejected.delta.num_corrected) == (0, len(lines))
    assert "F1 mean" in rejected.failed_gates
    page = Path(rejected.page).read_text()
    assert "<h1>Rejected</h1>" in page
    assert "Most changed confusions" in page
    assert registry.production(models).version == "first"
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_training", lambda *_, **__: pytest.fail("it was decided before"))
        assert retrain() == rejected

    # The labels are corrected, and there are new people.
    new = write_clips(labels, "ghijkl")
    (labels / "2.txt").write_text("\n".join([*lines, ""]) + "".join(new))

    trained: list[TrainingProgress] = []

    def report_steps(settings: TrainSettings, **_: object) -> TrainingResult:
        return run_training(settings, on_progress=trained.append)

    monkeypatch.setattr(comparison, "run_evaluation", lose_a_clip)
    monkeypatch.setattr(run, "run_training", report_steps)
    kill_in_each_step(retrain, monkeypatch)
    change_production_meanwhile(retrain, models, monkeypatch)
    assert registry.production(models).version == "first"
    promoted = retrain()
    reports = [(progress.epoch, progress.step, progress.metrics is None) for progress in trained]
    assert len(set(reports)) == len(reports), "no step is trained twice"
    assert "1 more could not be read." in Path(promoted.page).read_text()
    assert promoted.ended == "promoted", promoted.failed_gates
    assert promoted.delta.num_corrected == 0
    assert promoted.delta.num_new == len(new)
    assert registry.production(models).version == promoted.version != "first"
    assert [change.version for change in registry.history(models)] == ["first", "first", promoted.version]
    assert len(registry.list_versions(models)) == 2
    version = registry.read_version(models, promoted.version)
    assert version.notes["made from"] == "first"
    assert set(version.data["held-out"].subjects) >= set(
        registry.read_version(models, "first").data["validation"].subjects
    )
    assert "<h1>Promoted</h1>" in Path(promoted.page).read_text()
    assert (again := retrain()).ended == "too few new clips"
    assert "stays in production: 0 new and 0 corrected clips" in describe(again, 8)
    assert registry.rollback(models, reason="worse in practice").version == "first"
    after = retrain()
    assert (after.ended, after.delta.num_clips) == ("too few new clips", 0), "a rollback is not undone by itself"
    assert registry.production(models).version == "first"


def kill_in_each_step(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each of the steps after training, and die in it."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    steps = ((comparison, "run_evaluation"), (run, "write_page"), (registry, "register"), (registry, "promote"))
    for owner, name in steps:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(KeyboardInterrupt):
                retrain()


def change_production_meanwhile(retrain: Retrain, models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promote another version by hand just before the candidate is registered."""
    register = registry.register

    def promote_another(*arguments: Any, **how: Any) -> Any:
        registry.promote(models, "first", reason="by hand")
        return register(*arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", promote_another)
        with pytest.raises(RegistryError, match=r"has changed meanwhile: first is in production since .* \(by hand\)"):
            retrain()
