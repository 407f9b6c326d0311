"""A detector's learner: what it learns, resumes and adds up over parts and processes."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from microaction.training.detection_learner import DetectionBatch, DetectionLearner
from microaction.training.settings import TrainSettings
from tests.models.detectors import SIDE, SMALL_DETECTOR

CPU = torch.device("cpu")
NUM_FEATURES = 8 * 8 * 4  # of a backbone of width 8
T = 32


def settings(**changes: Any) -> TrainSettings:
    recipe = {"epochs": 4, "batch_size": 4, "base_batch_size": 4, "learning_rate": 3e-3, "warmup_epochs": 0.5}
    fields: dict[str, Any] = {
        "task": "detection",
        "train_list": "/l/train.csv",
        "train_videos": "/l",
        "val_list": "/l/val.csv",
        "val_videos": "/l",
        "storage_path": "/r",
        "name": "x",
        "preprocessing": {"short_side": SIDE, "crop": SIDE},
        "model": SMALL_DETECTOR | {"num_frames": T} | changes.pop("model", {}),
        "recipe": recipe | changes.pop("recipe", {}),
    }
    return TrainSettings.model_validate(fields | changes)


def learner(num_ranks: int = 1, **changes: Any) -> DetectionLearner:
    return DetectionLearner(settings(**changes), 20, CPU, num_ranks=num_ranks)


def clip(index: int, *, frames: bool = False) -> tuple[Tensor, int, Tensor, Tensor]:
    """Return a clip in which class 7 lasts where the first channels are high, and class 20 where the next are."""
    rng = np.random.default_rng(index)
    length = int(rng.integers(T // 2, T + 1))
    segments = np.array([sorted(rng.choice(length, 2, replace=False)) for _ in range(2)], np.float32)
    if frames:
        inputs = torch.from_numpy(rng.integers(0, 255, (T, SIDE, SIDE, 3)).astype(np.uint8))
    else:
        features = rng.normal(size=(T, NUM_FEATURES)).astype(np.float16)
        for part, (start, end) in enumerate(segments):
            features[int(start) : int(end), part * 16 : part * 16 + 16] += 3
        inputs = torch.from_numpy(features)
    inputs[length:] = 0
    return inputs, length, torch.from_numpy(segments), torch.tensor([7, 20])


def batch(indices: list[int], *, frames: bool = False) -> DetectionBatch:
    clips = [clip(index, frames=frames) for index in indices]
    inputs, lengths, segments, labels = zip(*clips, strict=True)
    kept = tuple(torch.ones(2, dtype=torch.bool) for _ in indices)
    return DetectionBatch(torch.stack(inputs), lengths, segments, labels, kept, tuple(indices))


def steps(of: DetectionLearner, first: int, last: int) -> list[float]:
    return [float(of.train_step(batch(list(range(4 * step, 4 * step + 4))), step)) for step in range(first, last)]


def test_the_loss_falls() -> None:
    of = learner(recipe={"learning_rate": 0.02})
    losses = [float(of.train_step(batch([0, 1, 2, 3]), step)) for step in range(80)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("model", [{}, {"mixing": "attention", "attention_window": 5, "boundaries": "shared"}])
def test_a_resumed_learner_continues_bit_for_bit(model: dict[str, Any]) -> None:
    recipe = {"ema_decay": 0.9}
    whole = learner(model=model, recipe=recipe)
    losses = steps(whole, 0, 6)
    first, second = learner(model=model, recipe=recipe), learner(model=model, recipe=recipe)
    before = steps(first, 0, 3)
    second.load_state(first.state())
    assert before + steps(second, 3, 6) == losses
    states = whole.state(), second.state()
    assert torch.equal(states[0]["normalizer"], states[1]["normalizer"])
    for name in ("model", "ema_model"):
        assert all(torch.equal(states[0][name][key], states[1][name][key]) for key in states[0][name])


def test_parts_add_up_to_the_batch() -> None:
    whole, parts = learner(), learner(recipe={"micro_batch_size": 1})
    assert steps(parts, 0, 3) == pytest.approx(steps(whole, 0, 3), rel=1e-4)


@pytest.mark.parametrize("freeze", [True, False])
def test_the_backbone_learns_from_frames_unless_it_is_frozen(freeze: bool) -> None:
    of = learner(recipe={"freeze_backbone": freeze, "batch_size": 2})
    before = of.state()["model"]
    of.train_step(batch([0, 1], frames=True), 0)
    after = of.state()["model"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("detector.") for name in changed)
    assert any(name.startswith("backbone.") for name in changed) != freeze
    assert not any("running_" in name for name in changed), "batch norms are frozen"


def test_a_first_layer_that_is_frozen_keeps_what_archives_hold() -> None:
    of = learner(recipe={"freeze_first_layer": True})
    before = of.state()["model"]
    steps(of, 0, 2)
    after = of.state()["model"]
    first = {name for name in before if name.startswith(("detector.embedding.0", "detector.embedding_norms.0"))}
    assert len(first) == 3
    assert all(torch.equal(before[name], after[name]) for name in first)
    assert not torch.equal(before["detector.embedding.1.weight"], after["detector.embedding.1.weight"])


def test_a_batch_of_which_nothing_could_be_read_changes_little() -> None:
    of = learner()
    empty = DetectionBatch(torch.zeros((0, T, NUM_FEATURES), dtype=torch.float16), (), (), (), (), ())
    assert np.isfinite(float(of.train_step(empty, 0)))


@pytest.mark.parametrize("frames", [False, True])
def test_parts_without_clips_add_nothing(frames: bool) -> None:
    """Two of three clips could be read, and each would be a part of its own."""
    recipe = {"batch_size": 3, "base_batch_size": 3}
    whole, parts = learner(recipe=recipe), learner(recipe=recipe | {"micro_batch_size": 1})
    two = batch([0, 1], frames=frames)
    assert float(parts.train_step(two, 0)) == pytest.approx(float(whole.train_step(two, 0)), rel=1e-4)
    shape = (0, T, SIDE, SIDE, 3) if frames else (0, T, NUM_FEATURES)
    none = DetectionBatch(torch.zeros(shape, dtype=two.inputs_BT.dtype), (), (), (), (), ())
    assert float(parts.train_step(none, 1)) == 0


def process(rank: int, num_ranks: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks)
    of = learner(num_ranks, recipe={"batch_size": 5, "base_batch_size": 5, "ema_decay": 0.9})
    if num_ranks > 1:
        of.replica = DistributedDataParallel(of.model)
    losses = []
    for step in range(6):
        indices = list(range(5 * step, 5 * step + 5))[rank::num_ranks]
        losses.append(of.train_step(batch(indices), step))
    total = torch.stack(losses)
    if num_ranks > 1:
        dist.all_reduce(total)
        dist.destroy_process_group()
    torch.save({"losses": total / num_ranks, "weights": of.state()["ema_model"]}, f"{folder}/{num_ranks}-{rank}.pt")


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    found = {}
    for num_ranks in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        spawn(process, (num_ranks, port, str(tmp_path)), num_ranks)  # type: ignore[no-untyped-call]
        found[num_ranks] = [
            torch.load(tmp_path / f"{num_ranks}-{rank}.pt", weights_only=True) for rank in range(num_ranks)
        ]
    (alone,), (first, second) = found[1], found[2]
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=0)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])
        torch.testing.assert_close(weight, alone["weights"][name], rtol=1e-3, atol=1e-4)
