"""Whole training runs on Ray Train, as small as possible.

Those whose workers die are in test_chaos.py, one that continues with another number of workers in tests/test_end_to_end.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from microaction.clips.sample import Augmentation, Sampling, decode_clip
from microaction.models import ManetConfig, load_checkpoint
from microaction.people import load_clip_look, measure_scale
from microaction.taxonomy import ACTIONS
from microaction.training.errors import StateError, TrainingError
from microaction.training.learner import RecognitionLearner
from microaction.training.order import epoch_order, shard_of_batches, steps_per_epoch
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, load_label_embeddings, run_training, with_embedding_dim
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from tests.people.scenes import draw_clip
from tests.training.runs import check_metrics, losses_of, settings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

# At a rate so low that rounding stays small: see test_scale.py.
RECIPE = {"epochs": 2, "batch_size": 6, "learning_rate": 0.003, "ema_decay": 0.8}


@dataclass(frozen=True)
class FinishedRun:
    """A run that several tests look at: none may change its files."""

    settings: TrainSettings
    folder: Path
    result: TrainingResult
    progress: list[TrainingProgress]
    lists: dict[str, Path]


def with_absent_clips(data: Path, folder: Path) -> dict[str, Path]:
    """Write both lists again, each with a clip that does not exist; return them by split."""
    lists = {split: folder / f"{split}.txt" for split in ("train", "val")}
    for split, path in lists.items():
        path.write_text((data / f"{split}.txt").read_text() + f"absent-{split}.mp4 0\n")
    return lists


@pytest.fixture(scope="module")
def finished(ray_cluster: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of two epochs by two workers, whose lists name a clip each that does not exist; some clips show people."""
    folder = tmp_path_factory.mktemp("finished")
    lists = with_absent_clips(data, folder)
    with lists["train"].open("a") as file:
        file.writelines(f"{draw_clip(folder / f'person-{seed}.mp4', seed)} {seed % 4}\n" for seed in range(6))
    changes: dict[str, object] = {
        "train_list": str(lists["train"]),
        "val_list": str(lists["val"]),
        "max_unreadable_fraction": 0.1,
        "model": {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.5},
        "recipe": RECIPE,
        "num_workers": 2,
    }
    of = settings(data, folder, "one", **changes)
    progress: list[TrainingProgress] = []
    result = run_training(of, on_progress=progress.append)
    return FinishedRun(of, folder / "one", result, progress, lists)


def test_a_run_ends_in_a_described_checkpoint(finished: FinishedRun) -> None:
    assert finished.result.checkpoint == str(finished.folder / "best")
    config = load_checkpoint(finished.result.checkpoint).config
    assert config.labels == ACTIONS
    assert isinstance(config.model, ManetConfig)
    assert config.model.embedding_dim == 384, "follows the shipped table"
    assert config.recipe["recipe"]["batch_size"] == 6
    assert config.versions["torch"]
    assert 0 <= config.metrics["f1_mean"] <= 1
    ends = [progress for progress in finished.progress if progress.metrics is not None]
    assert [(progress.epoch, progress.num_steps) for progress in ends] == [(1, 4), (2, 4)]
    left = {path.name for path in finished.folder.iterdir()}
    assert not left & {"checkpoints", "ray"}, "what only a run that continues needs is deleted"


def test_the_checkpoint_knows_how_people_lie_in_the_clips(finished: FinishedRun) -> None:
    clips, _ = read_splits(finished.settings)
    expected = measure_scale([load_clip_look(clip.uri) for clip in clips if "person-" in clip.name])
    assert expected is not None
    assert load_checkpoint(finished.result.checkpoint).config.preprocessing.person == expected
    assert finished.settings.preprocessing.person is None
    recorded = json.loads((finished.folder / "settings.json").read_text())
    assert recorded["preprocessing"]["person"] is None, "a resumed run compares what it is given"


def test_metrics_are_exact_over_all_workers(finished: FinishedRun) -> None:
    listed = finished.lists["val"].read_text().splitlines()[:-1]
    check_metrics(finished.folder / "best/validation.parquet", listed, finished.result.metrics)


def test_unreadable_clips_are_left_out_and_listed(finished: FinishedRun, data: Path) -> None:
    assert all(np.isfinite(value) for value in finished.result.metrics.values())
    listed = json.loads((finished.folder / "unreadable.json").read_text())
    assert listed == {
        f"{data}/absent-{split}.mp4": "no such file, though the list names it" for split in ("train", "val")
    }
    assert finished.progress[-1].num_unreadable == 2
    clips = pd.read_parquet(finished.folder / "best/clips.parquet")
    assert clips[~clips["is_readable"]][["name", "split"]].to_numpy().tolist() == [
        ["absent-train.mp4", "train"],
        ["absent-val.mp4", "validation"],
    ]
    for split, side in (("train", "train"), ("val", "validation")):
        of_split = clips[clips["split"] == side]
        lines = [f"{name} {label}" for name, label in zip(of_split["name"], of_split["label"], strict=True)]
        assert lines == finished.lists[split].read_text().splitlines()


def trained_without_ray(of: TrainSettings, unreadable: str) -> tuple[list[float], list[dict[str, dict[str, Tensor]]]]:
    """Train as a run does, one process in a plain loop; return the losses, and the weights after every epoch."""
    embeddings_KD = load_label_embeddings(of)
    of = with_embedding_dim(of, embeddings_KD)
    clips, _ = read_splits(of)
    num_steps = steps_per_epoch(len(clips), of.recipe.batch_size)
    learner = RecognitionLearner(of, embeddings_KD, num_steps, torch.device("cpu"))
    losses, weights = [], []
    for epoch in range(of.recipe.epochs):
        order = epoch_order(np.array([clip.label for clip in clips]), of.seed, epoch)
        sampling = Sampling(of.model.num_frames, of.preprocessing, Augmentation(of.seed, epoch, of.recipe.crop_scales))
        for step, draws in enumerate(shard_of_batches(order, of.recipe.batch_size, 0, 1), start=epoch * num_steps):
            readable = [int(draw) for draw in draws if clips[draw].name != unreadable]
            frames_BTHWC = np.stack([decode_clip(clips[draw].uri, draw, sampling).frames_THWC for draw in readable])
            target_B = torch.tensor([clips[draw].label for draw in readable])
            losses.append(learner.train_step(torch.from_numpy(frames_BTHWC), target_B, readable, step).item())
        state = {"averaged": learner.eval_model, "last": learner.model}
        weights.append(
            {kind: {name: value.clone() for name, value in each.state_dict().items()} for kind, each in state.items()}
        )
    return losses, weights


def test_two_workers_train_as_one_learner_without_ray(finished: FinishedRun) -> None:
    """The same losses; and the checkpoint holds the average of the weights after the best epoch."""
    losses, weights = trained_without_ray(finished.settings, "absent-train.mp4")
    np.testing.assert_allclose(losses_of(finished.folder), losses, rtol=1e-3)
    checkpoint = load_checkpoint(finished.result.checkpoint)
    expected = weights[checkpoint.config.recipe["epoch"] - 1]
    found = checkpoint.model.state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    distance = {
        kind: sum((found[name] - value).float().norm().item() for name, value in of_kind.items() if "weight" in name)
        for kind, of_kind in expected.items()
    }
    assert distance["averaged"] < 0.1 * distance["last"]


def test_a_finished_run_is_not_trained_again(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not even request nodes or start workers."""
    for name in ("await_nodes", "TorchTrainer"):
        monkeypatch.delattr(f"microaction.training.run.{name}")
    states = [(path.name, path.stat().st_mtime_ns) for path in sorted((finished.folder / "state").iterdir())]
    progress: list[TrainingProgress] = []
    assert run_training(finished.settings, on_progress=progress.append) == finished.result
    assert progress == []
    assert states == [(path.name, path.stat().st_mtime_ns) for path in sorted((finished.folder / "state").iterdir())]


@pytest.mark.slow
def test_an_unreadable_clip_beyond_the_limit_is_named(data: Path, tmp_path: Path) -> None:
    lists = with_absent_clips(data, tmp_path)
    recipe = {"epochs": 1, "batch_size": 6, "learning_rate": 0.01}
    broken = settings(data, tmp_path, "broken", train_list=str(lists["train"]), recipe=recipe, max_failures=0)
    allowed = r"of 21 clips could not be read so far, more than max_unreadable_fraction \(0\.01\) allows"
    with pytest.raises(
        TrainingError,
        match=rf"absent-train\.mp4: no such file.*; 1 {allowed}; fix the clip, or remove it from the list",
    ):
        run_training(broken)


@pytest.mark.slow
def test_a_damaged_state_ends_a_run_with_a_way_out(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run/state").mkdir(parents=True)
    (tmp_path / "run/state/step-000000004.pt").write_bytes(b"cut short")
    with pytest.raises(StateError, match=r"step-000000004\.pt is not a complete saved state: delete it to resume from"):
        run_training(settings(data, tmp_path, "run", max_failures=0))


@pytest.mark.slow
def test_a_loss_that_diverges_ends_a_run_with_a_way_out(data: Path, tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 4, "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d: lower recipe.learning_rate \(1e\+30\)"):
        run_training(settings(data, tmp_path, "run", recipe=recipe, max_failures=0))


@pytest.mark.slow
def test_a_workers_whole_shard_of_a_batch_may_be_unreadable(data: Path, tmp_path: Path) -> None:
    lists = with_absent_clips(data, tmp_path)
    result = run_training(
        settings(
            data,
            tmp_path,
            "some",
            train_list=str(lists["train"]),
            val_list=str(lists["val"]),
            recipe={"epochs": 1, "batch_size": 2, "learning_rate": 0.01},
            num_workers=2,
            max_unreadable_fraction=0.1,
        )
    )
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert len(json.loads((tmp_path / "some/unreadable.json").read_text())) == 2


@pytest.mark.slow
def test_bf16_runs_end_close_to_fp32_ones(data: Path, tmp_path: Path) -> None:
    recipe = {"batch_size": 4, "epochs": 1, "learning_rate": 0.01}
    runs = [
        trained_without_ray(settings(data, tmp_path, precision, recipe=recipe | {"precision": precision}), "")
        for precision in ("fp32", "bf16")
    ]
    losses = [float(np.mean(losses)) for losses, _ in runs]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert {value.dtype for value in runs[1][1][-1]["last"].values()} == {torch.float32, torch.int64}


@pytest.mark.slow
def test_a_run_starts_from_the_given_weights(finished: FinishedRun, data: Path, tmp_path: Path) -> None:
    recipe = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-9}
    init = finished.result.checkpoint
    result = run_training(settings(data, tmp_path, "second", recipe=recipe, seed=2, init=init))
    weights = [load_checkpoint(each).model.state_dict()["action.weight"] for each in (init, result.checkpoint)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
