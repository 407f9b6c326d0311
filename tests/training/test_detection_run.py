"""Whole training runs of a detector on Ray Train, as small as possible, and what is done with their checkpoint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import microaction
from microaction.evaluation.detection_run import run_detection_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.labeling.execution import work_digest
from microaction.models import load_checkpoint
from microaction.synthetic.untrimmed_dataset import UntrimmedDataset, make_untrimmed_dataset
from microaction.training.errors import TrainingError
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, run_training
from microaction.training.settings import TrainSettings
from tests.archives import write_model
from tests.training.chaos import Job
from tests.training.runs import log_of, losses_of, write_config

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

# So fast that something is found after nine steps.
RECIPE = {
    "epochs": 3,
    "batch_size": 3,
    "base_batch_size": 3,
    "learning_rate": 0.1,
    "ema_decay": 0.5,
    "warmup_epochs": 0.0,
}


@dataclass(frozen=True)
class FinishedRun:
    """A run that several tests look at: none may change its files."""

    settings: TrainSettings
    folder: Path
    result: TrainingResult
    progress: list[TrainingProgress]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> UntrimmedDataset:
    """Ten videos to train on, one of which is cut short, and four to validate on, one of which is missing."""
    dataset = make_untrimmed_dataset(
        tmp_path_factory.mktemp("drawn"),
        num_train_subjects=3,
        num_val_subjects=2,
        num_train_videos=10,
        num_val_videos=4,
        size=(48, 56),
        fps=10,
        num_processes=1,
    )
    cut = dataset.train_dir / "train0003.mp4"
    cut.write_bytes(cut.read_bytes()[:700])
    (dataset.val_dir / "val0002.mp4").unlink()
    return dataset


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("classifier"))


def settings(drawn: UntrimmedDataset, classifier: str, storage: Path, name: str, **changes: Any) -> TrainSettings:
    fields: dict[str, Any] = {
        "task": "detection",
        "train_list": str(drawn.train_list),
        "train_videos": str(drawn.train_dir),
        "val_list": str(drawn.val_list),
        "val_videos": str(drawn.val_dir),
        "storage_path": str(storage),
        "name": name,
        "init": classifier,
        "model": {"family": "detector", "pyramid_width": 16, "num_frames": 64},
        "recipe": RECIPE | changes.pop("recipe", {}),
        "max_unreadable_fraction": 0.5,
    }
    return TrainSettings.model_validate(fields | changes)


@pytest.fixture(scope="module")
def finished(
    ray_cluster: None, drawn: UntrimmedDataset, classifier: str, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    folder, progress = tmp_path_factory.mktemp("runs"), list[TrainingProgress]()
    of = settings(drawn, classifier, folder, "run")
    result = run_training(of, on_progress=progress.append)
    return FinishedRun(of, folder / "run", result, progress)


def test_a_run_ends_with_a_calibrated_checkpoint_and_a_page(finished: FinishedRun) -> None:
    checkpoint = load_checkpoint(finished.result.checkpoint)
    config = checkpoint.config
    assert config.task == "detection"
    assert config.score_calibration is not None
    assert config.metrics == finished.result.metrics
    assert config.preprocessing.crop == 40, "that of the classifier that it begins from"
    assert config.metrics["num_detections"] > 0
    (page,) = finished.folder.glob("*.html")
    assert "mAP" in page.read_text()
    assert {"curves.svg", "map.svg", "per_class.svg", "calibration.svg"} <= {
        path.name for path in finished.folder.iterdir()
    }
    table = pq.read_table(finished.folder / "best" / "validation.parquet")
    assert set(table["video"].to_pylist()) <= {"val0000.mp4", "val0001.mp4", "val0003.mp4"}
    steps = [each for each in finished.progress if each.metrics is not None]
    assert [each.epoch for each in steps] == [1, 2, 3]


def test_what_cannot_be_read_is_left_out_and_listed(finished: FinishedRun) -> None:
    unreadable = json.loads((finished.folder / "unreadable.json").read_text())
    assert {Path(uri).name for uri in unreadable} == {"train0003.mp4", "val0002.mp4"}
    clips = pd.read_parquet(finished.folder / "best" / "clips.parquet")
    assert {name.split("#")[0] for name in clips[~clips["is_readable"]]["name"]} == {"train0003.mp4", "val0002.mp4"}
    assert clips["subject"].notna().all()


def test_the_backbone_is_the_classifiers(finished: FinishedRun, classifier: str) -> None:
    ours, theirs = (load_checkpoint(each).model.state_dict() for each in (finished.result.checkpoint, classifier))
    names = [name for name in theirs if name.startswith("backbone.") and "num_batches" not in name]
    assert names
    assert all(torch.equal(theirs[name], ours[f"backbone.{name}"]) for name in names)


def test_a_finished_run_is_not_trained_again(finished: FinishedRun) -> None:
    progress = list[TrainingProgress]()
    assert run_training(finished.settings, on_progress=progress.append) == finished.result
    assert progress == []


def test_evaluate_measures_what_training_did(finished: FinishedRun, drawn: UntrimmedDataset, tmp_path: Path) -> None:
    of = EvaluateSettings(
        task="detection",
        model=finished.result.checkpoint,
        clips_list=str(drawn.val_list),
        videos=str(drawn.val_dir),
        out=str(tmp_path / "out"),
        submission=str(tmp_path / "submission.zip"),
        max_unreadable_fraction=0.5,
    )
    found = run_detection_evaluation(of)
    assert {name: found.metrics[name] for name in found.metrics} == pytest.approx(
        {name: finished.result.metrics[name] for name in found.metrics}, nan_ok=True
    )
    assert "none of the 2 people" in found.seen.lower()
    assert (tmp_path / "submission.zip").exists()


def test_the_checkpoint_labels(finished: FinishedRun, drawn: UntrimmedDataset) -> None:
    labeled = microaction.label_video(
        drawn.val_dir / "val0000.mp4", finished.result.checkpoint, people="off", min_score=0.0, precision="fp32"
    )
    assert labeled.failures.num_rows == 0
    assert labeled.events.num_rows > 0
    found = pq.read_table(finished.folder / "best" / "validation.parquet").to_pandas()
    assert set(labeled.events["action_id"].to_pylist()) == set(found[found["video"] == "val0000.mp4"]["action_id"])


@pytest.mark.slow
def test_a_new_head_for_labeled_archives(
    finished: FinishedRun, drawn: UntrimmedDataset, classifier: str, tmp_path: Path
) -> None:
    of = settings(
        drawn,
        classifier,
        tmp_path,
        "head",
        init=finished.result.checkpoint,
        recipe={"freeze_first_layer": True, "epochs": 1, "warmup_epochs": 0.0},
        features=str(finished.folder / "features"),
    )
    progress = list[TrainingProgress]()
    head = load_checkpoint(run_training(of, on_progress=progress.append).checkpoint)
    before = load_checkpoint(finished.result.checkpoint)
    assert all(each.features is None for each in progress), "the features are those of the first run"
    assert head.digest != before.digest
    assert work_digest(head) == work_digest(before)


def test_another_backbone_than_that_of_init_is_refused(
    drawn: UntrimmedDataset, classifier: str, tmp_path: Path
) -> None:
    model = {"family": "detector", "backbone": {"preset": "manet", "width": 16}}
    with pytest.raises(TrainingError, match="another configuration"):
        run_training(settings(drawn, classifier, tmp_path, "x", model=model))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_a_killed_run_ends_as_one_that_was_not(
    freeze: bool, drawn: UntrimmedDataset, classifier: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "recipe": {"freeze_backbone": freeze, "epochs": 6 if freeze else 3},
        "checkpoint_interval_s": 0.01,
    }
    if not freeze:
        changes["recipe"] |= {"micro_batch_size": 1}
    run_training(settings(drawn, classifier, tmp_path, "whole", **changes))
    job = Job(write_config(tmp_path / "killed.yaml", settings(drawn, classifier, tmp_path, "killed", **changes)))
    try:
        for step in (2, 7):
            job.wait_for_step(tmp_path / "killed", step)
            job.kill_driver()
        assert job.driver.wait() == 0, job.tail()
    finally:
        job.driver.kill()
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    assert losses_of(tmp_path / "killed").tolist() == losses_of(tmp_path / "whole").tolist()
    states = [load_checkpoint(str(tmp_path / name / "best")).model.state_dict() for name in ("whole", "killed")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
