"""PCAN is trained by the same learner: its loss depends on the whole batch, its prototypes belong to the state."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import microaction
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.labeling.run import run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.models import default_label_embeddings, load_checkpoint
from microaction.models.golden import golden_difference, make_golden
from microaction.skeletons import write_skeletons
from microaction.synthetic import make_dataset
from microaction.synthetic.interview import interview_keypoints, make_interview
from microaction.training.global_batch import gather_batch
from microaction.training.learner import RecognitionLearner
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings
from tests.labeling.runs import tables
from tests.models.networks import SIDE, SMALL_POSE_NETWORKS, people_checkpoint
from tests.training.runs import losses_of, settings

BATCH_SIZE = 5  # not a multiple of the numbers of processes
NUM_PEOPLE = 2
POSE_SIDE = 56
CPU = torch.device("cpu")


def pose_settings(preset: str, folder: Path = Path("-"), **changes: Any) -> TrainSettings:
    side = SIDE if preset == "pcan" else POSE_SIDE
    fields: dict[str, Any] = {
        "model": {"preset": preset} | SMALL_POSE_NETWORKS[preset],
        "recipe": {"epochs": 4, "batch_size": BATCH_SIZE, "learning_rate": 0.01},
        "preprocessing": {"short_side": side, "crop": side, "test_side": side},
        "train_skeletons": f"{folder}/train.parquet",
        "val_skeletons": f"{folder}/val.parquet",
    }
    name = changes.pop("name", "x")
    return settings(folder, folder, name, **(fields | changes))


def learner(preset: str = "pcan", num_ranks: int = 1) -> RecognitionLearner:
    return RecognitionLearner(pose_settings(preset), default_label_embeddings(), 10, CPU, num_ranks=num_ranks)


def batch(of: RecognitionLearner, step: int) -> tuple[Tensor, Tensor, list[int], int, Tensor]:
    """Return what `train_step` takes: clips whose brightness and place of the keypoints tell their class."""
    rng = np.random.default_rng(step)
    target_B = rng.integers(0, 52, BATCH_SIZE)
    model, side = of.settings.model, of.settings.preprocessing.crop
    frames = (
        rng.integers(0, 100, (BATCH_SIZE, model.num_rgb_frames, side, side, 3)) + target_B[:, None, None, None, None]
    )
    keypoints = rng.random((BATCH_SIZE, NUM_PEOPLE, model.num_pose_frames, 28, 3), np.float32)
    keypoints[..., :2] = (keypoints[..., :2] / 2 + target_B[:, None, None, None, None] / 104) * side
    return (
        torch.from_numpy(frames.astype(np.uint8)),
        torch.from_numpy(target_B),
        [10 * step + i for i in range(BATCH_SIZE)],
        step,
        torch.from_numpy(keypoints),
    )


@pytest.mark.parametrize("preset", SMALL_POSE_NETWORKS)
def test_a_loaded_state_continues_bit_for_bit(preset: str) -> None:
    """Also with the prototypes of body parts, which the reference replaces with random ones."""
    whole, first = learner(preset), learner(preset)
    for step in range(2):
        whole.train_step(*batch(whole, step))
        first.train_step(*batch(first, step))
    second = learner(preset)
    second.load_state(first.state())
    for step in range(2, 5):
        assert torch.equal(whole.train_step(*batch(whole, step)), second.train_step(*batch(second, step)))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("preset", SMALL_POSE_NETWORKS)
def test_a_network_learns_a_batch(preset: str) -> None:
    of = learner(preset)
    frames_BTHWC, target_B, index_B, _, keypoints_BMTK3 = batch(of, 1)
    losses = [of.train_step(frames_BTHWC, target_B, index_B, step, keypoints_BMTK3).item() for step in range(12)]
    assert min(losses[-3:]) < losses[0]


def test_a_batch_without_a_readable_clip_changes_no_prototype() -> None:
    of = learner()
    before = of.model.get_buffer("rgb.body_prototypes").clone()
    frames_BTHWC, target_B, _, step, keypoints_BMTK3 = batch(of, 0)
    loss = of.train_step(frames_BTHWC[:0], target_B[:0], [], step, keypoints_BMTK3[:0])
    assert loss == 0
    assert torch.equal(of.model.get_buffer("rgb.body_prototypes"), before)
    assert all(parameter.isfinite().all() for parameter in of.model.parameters())


def train_shards(rank: int, num_ranks: int, port: int, num_steps: int, folder: str) -> None:
    """Train with every `num_ranks`-th clip of each batch, as a worker does, and save the losses of all steps."""
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks)
    of = learner(num_ranks=num_ranks)
    if num_ranks > 1:
        of.replica = DistributedDataParallel(of.model)
    losses = []
    for number in range(num_steps):
        frames_BTHWC, target_B, index_B, step, keypoints_BMTK3 = batch(of, number)
        unreadable = {2: 3, 3: 4}.get(number)
        own = [place for place in range(rank, BATCH_SIZE, num_ranks) if place != unreadable]
        indices = [index_B[place] for place in own]
        losses.append(of.train_step(frames_BTHWC[own], target_B[own], indices, step, keypoints_BMTK3[own]))
    state = {"losses": torch.stack(losses), "prototypes": of.model.get_buffer("pose.action_prototypes")}
    torch.save(state, f"{folder}/{num_ranks}-{rank}.pt")
    if num_ranks > 1:
        dist.destroy_process_group()


def trained(num_ranks: int, num_steps: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Return the losses of the steps and the prototypes, which are the same in all processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(train_shards, (num_ranks, port, num_steps, str(folder)), num_ranks)  # type: ignore[no-untyped-call]
    states = [torch.load(folder / f"{num_ranks}-{rank}.pt", weights_only=True) for rank in range(num_ranks)]
    for state in states:
        assert torch.equal(state["losses"], states[0]["losses"])
        assert torch.equal(state["prototypes"], states[0]["prototypes"])
    return states[0]["losses"], states[0]["prototypes"]


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_the_losses(tmp_path: Path) -> None:
    one, two, three = (trained(num_ranks, 20, tmp_path) for num_ranks in (1, 2, 3))
    for other in (two, three):
        torch.testing.assert_close(other[0], one[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(other[1], one[1], rtol=1e-2, atol=1e-2)
    assert one[0][0] > one[0][-3:].mean()


def test_a_batch_of_one_process_is_what_it_was() -> None:
    logits_BK, target_B = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    outputs, targets = gather_batch((logits_BK, None), target_B, 4, 4)
    assert outputs[0] is logits_BK
    assert targets is target_B


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recipe": {"micro_batch_size": 2}}, "the loss of pcan depends on the whole batch"),
        ({"train_skeletons": None}, "the network sees the skeletons of people: give train_skeletons"),
        ({"val_skeletons": None}, "give val_skeletons"),
        ({"init_pose": "/weights"}, "init_pose belongs to pcan, and to init with its RGB path"),
        ({"model": {"preset": "pcan", "num_keypoints": 17}}, r"model.num_keypoints \(17\) must be 28"),
        ({"model": "manet"}, "train_skeletons is given, but manet does not see skeletons"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pose_settings("pcan", **({"preprocessing": {}} if "model" in changes else {}) | changes)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_pcan_from_drawn_people_to_labels(tmp_path: Path) -> None:
    """Trained by one worker and by two alike, merged of its paths, evaluated, and labeling an interview."""
    dataset = make_dataset(
        tmp_path / "drawn",
        num_train_subjects=3,
        num_val_subjects=1,
        num_train_clips=12,
        num_val_clips=4,
        size=(96, 116),
        with_skeletons=True,
    )
    data: dict[str, Any] = {
        "train_list": str(dataset.train_list),
        "val_list": str(dataset.val_list),
        "train_videos": str(dataset.train_dir),
        "val_videos": str(dataset.val_dir),
        "train_skeletons": str(dataset.train_skeletons),
        "val_skeletons": str(dataset.val_skeletons),
        "recipe": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
    }
    paths = {preset: people_checkpoint(tmp_path, preset) for preset in ("pcan-rgb", "pcan-pose")}
    merged = {"init": paths["pcan-rgb"], "init_pose": paths["pcan-pose"]}
    results = [
        run_training(
            pose_settings("pcan", tmp_path, **data, **merged, name=f"run{num_workers}", num_workers=num_workers)
        )
        for num_workers in (1, 2)
    ]
    losses = [losses_of(tmp_path / f"run{num_workers}") for num_workers in (1, 2)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    metrics = [result.metrics for result in results]
    assert metrics[0]["action_top1"] == metrics[1]["action_top1"]
    predictions = pq.read_table(f"{results[0].checkpoint}/validation.parquet")
    body_NP = np.stack(predictions["body_part_probabilities"].to_numpy())
    np.testing.assert_allclose(body_NP.sum(axis=1), 1, rtol=1e-5)

    model = results[0].checkpoint
    evaluation = run_evaluation(
        EvaluateSettings(
            model=model,
            clips_list=str(dataset.val_list),
            videos=str(dataset.val_dir),
            skeletons=str(dataset.val_skeletons),
            out=str(tmp_path / "evaluation"),
            submission=str(tmp_path / "prediction.zip"),
        )
    )
    assert evaluation.metrics["action_top1"] == metrics[0]["action_top1"]
    assert evaluation.metrics["body_top1"] == metrics[0]["body_top1"]
    checkpoint = load_checkpoint(model)
    assert golden_difference(checkpoint, make_golden(checkpoint)) == 0

    archive = tmp_path / "archive"
    archive.mkdir()
    how: dict[str, Any] = {"subject_seed": 5, "seed": 1, "duration_s": 5.0, "size": (96, 116)}
    make_interview(archive / "a.mp4", **how)
    whole = interview_keypoints(**how)
    write_skeletons(iter([("a.mp4", whole.at(np.arange(90)))]), str(tmp_path / "archive.parquet"))
    fields = {"archive": str(archive), "out": str(tmp_path / "out"), "model": model, "precision": "fp32"}
    table = str(tmp_path / "archive.parquet")
    run_labeling(LabelSettings.model_validate(fields | {"skeletons": table}))
    incomplete = tables(tmp_path / "out")
    assert incomplete["windows"]["start_s"].tolist() == [0, 1, 2]
    assert len(incomplete["failures"]) == 1
    # A completed table is new work for the same command.
    write_skeletons(iter([("a.mp4", whole)]), table)
    run_labeling(LabelSettings.model_validate(fields | {"skeletons": table}))
    assert len(tables(tmp_path / "out")["failures"]) == 0
    found = tables(tmp_path / "out")["windows"]
    alone = microaction.label_video(archive / "a.mp4", model, precision="fp32", skeletons=table).windows
    assert found["start_s"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.stack(list(found["probabilities"])), np.stack(alone["probabilities"].to_numpy()))
