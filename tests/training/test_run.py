"""Whole training runs on Ray Train, as small as they can be; test_chaos.py has those whose processes die, test_nodes.py and
tests/test_end_to_end.py those that go on with another number of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from microaction.clips.manifest import ManifestError
from microaction.models import CheckpointError, ManetConfig, load_checkpoint
from microaction.taxonomy import ACTIONS
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingError, load_label_embeddings, run_training, with_embedding_dim
from microaction.training.state import StateError
from tests.training.runs import settings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_a_run_ends_in_a_checkpoint_that_says_what_it_is(data: Path, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    result = run_training(settings(data, tmp_path, "one"), on_progress=seen.append)
    assert result.checkpoint == str(tmp_path / "one/best")
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.config.labels == ACTIONS
    assert isinstance(checkpoint.config.model, ManetConfig)
    assert checkpoint.config.model.embedding_dim == 384, "follows the shipped table"
    assert checkpoint.config.recipe["recipe"]["batch_size"] == 4
    assert checkpoint.config.versions["torch"]
    assert 0 <= checkpoint.config.metrics["f1_mean"] <= 1
    ends = [progress for progress in seen if progress.metrics is not None]
    assert [(progress.epoch, progress.num_steps) for progress in ends] == [(1, 4), (2, 4)]

    # The same name and settings again: nothing is left to do, and the result is the same.
    again = run_training(settings(data, tmp_path, "one"))
    assert again == result
    # Other settings under the same name are refused, with the difference.
    with pytest.raises(TrainingError, match=r"other settings \(seed: recorded 0, now 5\): choose another name"):
        run_training(settings(data, tmp_path, "one", seed=5))


BETTER = {"label_smoothing": 0.1, "class_balance": 1.0, "ema_decay": 0.8}


def test_an_average_of_weights_is_what_is_measured_and_saved(data: Path, tmp_path: Path) -> None:
    recipe = {"batch_size": 4, "learning_rate": 0.05, "epochs": 1}
    plain, averaged = (
        load_checkpoint(
            run_training(settings(data, tmp_path, name, recipe=recipe | better)).checkpoint
        ).model.state_dict()
        for name, better in (("plain", BETTER | {"ema_decay": None}), ("averaged", BETTER))
    )
    assert plain.keys() == averaged.keys()
    assert not torch.equal(plain["action.weight"], averaged["action.weight"])


def test_bf16_trains_much_as_fp32_does_and_saves_fp32(data: Path, tmp_path: Path) -> None:
    recipe = {"batch_size": 4, "epochs": 1, "learning_rate": 0.01}
    results = [
        run_training(settings(data, tmp_path, precision, recipe=recipe | {"precision": precision}))
        for precision in ("fp32", "bf16")
    ]
    losses = [result.metrics["loss"] for result in results]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    state = load_checkpoint(results[1].checkpoint).model.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}


def test_training_goes_on_from_given_weights(data: Path, tmp_path: Path) -> None:
    recipe = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-9}
    first = run_training(settings(data, tmp_path, "first", recipe=recipe, seed=1))
    second = run_training(settings(data, tmp_path, "second", recipe=recipe, seed=2, init=first.checkpoint))
    weights = [load_checkpoint(each.checkpoint).model.state_dict()["action.weight"] for each in (first, second)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"no weights at .*absent\.pth: give a checkpoint directory"):
        run_training(settings(data, tmp_path, "third", init=f"{tmp_path}/absent.pth"))
    assert not (tmp_path / "third").exists()


def test_word_vectors_of_the_users_decide_the_embedding(data: Path, tmp_path: Path) -> None:
    words = sorted({word for name in ACTIONS for word in name.replace("-", " ").split()})
    table = tmp_path / "vectors.txt"
    table.write_text("".join(f"{word} {i} 1 2\n" for i, word in enumerate(words)))
    of = settings(data, tmp_path, "words", label_embeddings=str(table))
    model = with_embedding_dim(of, load_label_embeddings(of)).model
    assert isinstance(model, ManetConfig)
    assert model.embedding_dim == 3
    explicit = settings(data, tmp_path, "words", label_embeddings=str(table), model={"embedding_dim": 300})
    with pytest.raises(TrainingError, match=r"model.embedding_dim \(300\) must be 3, the length of the label vectors"):
        with_embedding_dim(explicit, load_label_embeddings(explicit))


def test_what_cannot_work_is_said_before_anything_starts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"recipe.batch_size \(40\) exceeds the 17 training clips"):
        run_training(settings(data, tmp_path, "a", recipe={"batch_size": 40}))
    with pytest.raises(ValidationError, match=r"recipe.batch_size \(4\) must be at least num_workers \(5\)"):
        settings(data, tmp_path, "b", num_workers=5)
    with pytest.raises(ValidationError, match=r"model.num_classes \(7\) must be 52, the number of labels"):
        settings(data, tmp_path, "b", model={"num_classes": 7})
    with pytest.raises(ValidationError, match=r"min_workers \(2\) must be at most num_workers \(1\)"):
        settings(data, tmp_path, "b", min_workers=2)
    with pytest.raises(ValidationError, match="give val_list and val_videos, or split_by=subject"):
        settings(data, tmp_path, "b", val_list=None, val_videos=None)
    with pytest.raises(ManifestError, match="no list file at"):
        run_training(settings(data, tmp_path, "c", val_list=f"{data}/absent.txt"))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_state_is_said_with_what_to_do(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run/state").mkdir(parents=True)
    (tmp_path / "run/state/step-000000004.pt").write_bytes(b"cut short")
    with pytest.raises(
        StateError,
        match=r"step-000000004\.pt is not a complete saved state of this version of microaction: delete it to resume from",
    ):
        run_training(settings(data, tmp_path, "run", max_failures=0))


def test_a_clip_that_cannot_be_read_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text((data / "train.txt").read_text() + "absent.mp4 0\n")
    broken = settings(data, tmp_path, "broken", train_list=f"{tmp_path}/list.txt", max_failures=0)
    broken = broken.model_copy(update={"recipe": broken.recipe.model_copy(update={"batch_size": 6})})
    allowed = r"of 21 clips 1 cannot be read so far, more than max_unreadable_fraction \(0\.01\) allows"
    with pytest.raises(TrainingError, match=rf"absent\.mp4: no such file.*{allowed}; mend the clip, or take it out of"):
        run_training(broken)


def test_clips_that_cannot_be_read_are_left_out_and_listed(data: Path, tmp_path: Path) -> None:
    """One process's whole share of a batch may be among them."""
    lists = {}
    for split in ("train", "val"):
        lists[split] = tmp_path / f"{split}.txt"
        lists[split].write_text((data / f"{split}.txt").read_text() + f"absent-{split}.mp4 0\n")
    seen: list[TrainingProgress] = []
    recipe = {"epochs": 1, "batch_size": 2, "learning_rate": 0.01}
    result = run_training(
        settings(
            data,
            tmp_path,
            "some",
            train_list=str(lists["train"]),
            val_list=str(lists["val"]),
            recipe=recipe,
            num_workers=2,
            max_unreadable_fraction=0.1,
        ),
        on_progress=seen.append,
    )
    assert all(np.isfinite(value) for value in result.metrics.values())
    listed = json.loads((tmp_path / "some/unreadable.json").read_text())
    assert listed == {
        f"{data}/absent-{split}.mp4": "no such file, though the list names it" for split in ("train", "val")
    }
    assert seen[-1].num_unreadable == 2
    clips = pd.read_parquet(Path(result.checkpoint, "clips.parquet"))
    assert clips[~clips["is_readable"]][["name", "split"]].to_numpy().tolist() == [
        ["absent-train.mp4", "train"],
        ["absent-val.mp4", "validation"],
    ]
    for split, side in (("train", "train"), ("val", "validation")):
        of_split = clips[clips["split"] == side]
        lines = [f"{name} {label}" for name, label in zip(of_split["name"], of_split["label"], strict=True)]
        assert lines == lists[split].read_text().splitlines()
