"""Every network, at reduced size: one, two and three processes give the same scores and losses, and a killed one resumes."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from microaction.clips.ingest import ClipBatch
from microaction.clips.manifest import Clip
from microaction.clips.sample import Sampling, decode_clip
from microaction.clips.skeletons import ClipSkeletons
from microaction.evaluation.calibration import probabilities_of
from microaction.evaluation.metrics import measure
from microaction.models import default_label_embeddings
from microaction.skeletons import Skeleton
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.synthetic import SyntheticDataset, make_dataset
from microaction.training.learner import RecognitionLearner
from microaction.training.order import epoch_order, shard_of_batches
from microaction.training.recognition_loop import augmentation_of
from microaction.training.run import with_embedding_dim
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from microaction.training.state import RunState, load_state, save_state
from microaction.training.validation import ValidationScores, validate
from tests.models.networks import SIDE, SMALL_NETWORKS, SMALL_POSE_NETWORKS
from tests.training.runs import settings

pytestmark = pytest.mark.slow

SIZES = SMALL_NETWORKS | SMALL_POSE_NETWORKS
POSE_SIDE = 56
BATCH_SIZE = 5  # not a multiple of the numbers of processes
NUM_STEPS = 4
KILLED_IN_STEP = 2
NUM_CLIPS, NUM_VAL_CLIPS = 20, 7


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    make_dataset(
        folder,
        num_train_subjects=2,
        num_val_subjects=1,
        num_train_clips=NUM_CLIPS,
        num_val_clips=NUM_VAL_CLIPS,
        size=(80, 96),
        with_skeletons=True,
    )
    return folder


def read_here(
    clips: Sequence[Clip],
    order: np.ndarray,
    sampling: Sampling,
    batch_size: int,
    *,
    skeletons: ClipSkeletons | None,
    on_unreadable: object,
) -> Iterator[ClipBatch]:
    """`read_clips` in this process: a Ray for each would take minutes."""
    del on_unreadable  # a clip that cannot be read raises
    for first in range(0, len(order), batch_size):
        index_B = order[first : first + batch_size]
        packed = [None if skeletons is None else Skeleton.from_bytes(skeletons.packed(clips[i])) for i in index_B]
        samples = [
            decode_clip(clips[i].uri, int(i), sampling, skeleton=of) for i, of in zip(index_B, packed, strict=True)
        ]
        num_people = 0 if skeletons is None else skeletons.num_people
        keypoints_BMTK3 = np.zeros((len(index_B), num_people, sampling.num_pose_sampled, NUM_KEYPOINTS, 3), np.float32)
        for row, sample in enumerate(samples):
            keypoints_BMTK3[row, : len(sample.keypoints_MTK3)] = sample.keypoints_MTK3
        frames_BTHWC = np.stack([sample.frames_THWC for sample in samples])
        yield ClipBatch(frames_BTHWC, np.array([clips[i].label for i in index_B]), index_B, keypoints_BMTK3)


class Process:
    """What a training worker does for one network, on one shard of each batch; without Ray."""

    def __init__(self, preset: str, clips: Path, rank: int = 0, num_ranks: int = 1) -> None:
        data, embeddings_KD = SyntheticDataset.at(clips), default_label_embeddings()
        self.settings = with_embedding_dim(preset_settings(preset, data), embeddings_KD)
        self.rank, self.num_ranks = rank, num_ranks
        self.train_clips, self.val_clips = read_splits(self.settings)
        self.skeletons = None
        if preset.startswith("pcan"):
            self.skeletons = ClipSkeletons.read(
                (self.train_clips, str(data.train_skeletons)), (self.val_clips, str(data.val_skeletons))
            )
        self.learner = RecognitionLearner(
            self.settings, embeddings_KD, NUM_STEPS, torch.device("cpu"), num_ranks=num_ranks
        )
        if num_ranks > 1:
            self.learner.replica = DistributedDataParallel(self.learner.model)

    def train(self, first_step: int = 0) -> Iterator[torch.Tensor]:
        """Yield the loss of every step from `first_step` on."""
        label_N = np.array([clip.label for clip in self.train_clips])
        order = epoch_order(label_N, self.settings.seed, 0)
        shard = shard_of_batches(order, BATCH_SIZE, self.rank, self.num_ranks)[first_step:]
        sampling = Sampling.of(
            self.settings.model, self.settings.preprocessing, augmentation_of(self.settings, epoch=0)
        )
        batches = read_here(
            self.train_clips,
            shard.reshape(-1),
            sampling,
            shard.shape[1],
            skeletons=self.skeletons,
            on_unreadable=fail,
        )
        for step, batch in enumerate(batches, start=first_step):
            arrays = (batch.frames_BTHWC, batch.target_B, batch.keypoints_BMTK3)
            frames_BTHWC, target_B, keypoints_BMTK3 = (torch.from_numpy(array) for array in arrays)
            yield self.learner.train_step(frames_BTHWC, target_B, batch.index_B.tolist(), step, keypoints_BMTK3)

    def validate(self) -> ValidationScores:
        with patch("microaction.training.validation.read_clips", read_here):
            return validate(self.learner, self.val_clips, {}, fail, skeletons=self.skeletons)


def preset_settings(preset: str, data: SyntheticDataset) -> TrainSettings:
    side = POSE_SIDE if preset == "pcan-pose" else SIDE
    sees_people = preset.startswith("pcan")
    model = {name: value for name, value in SIZES[preset].items() if name != "embedding_dim"}
    pixels: dict[str, Any] = {"short_side": side, "crop": side}
    fields: dict[str, Any] = {
        "train_list": str(data.train_list),
        "val_list": str(data.val_list),
        "train_videos": str(data.train_dir),
        "val_videos": str(data.val_dir),
        "model": {"preset": preset} | model,
        "recipe": {"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "base_batch_size": BATCH_SIZE},
        "preprocessing": pixels | ({"fit": "people", "sampling": "bins"} if sees_people else {}),
    }
    if sees_people:
        fields |= {"train_skeletons": str(data.train_skeletons), "val_skeletons": str(data.val_skeletons)}
    return settings(Path("-"), Path("-"), "x", **fields)


def fail(error: Exception) -> None:
    raise error


@contextmanager
def process_group(rank: int, num_ranks: int, port: int) -> Iterator[None]:
    if num_ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks)
    yield
    if num_ranks > 1:
        dist.destroy_process_group()


def train_all(rank: int, num_ranks: int, port: int, clips: str, folder: str) -> None:
    """Validate every network, train it and validate it again; save scores, losses and weights."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with process_group(rank, num_ranks, port):
        for preset in SIZES:
            process = Process(preset, Path(clips), rank, num_ranks)
            before, losses, after = process.validate(), list(process.train()), process.validate()
            assert [clip.name for clip in before.clips] == [clip.name for clip in process.val_clips]
            total = torch.stack(losses)
            if num_ranks > 1:
                dist.all_reduce(total)
            target_N = np.array([clip.label for clip in before.clips])
            found[preset] = {
                "logits": torch.from_numpy(before.logits_NK),
                "metrics": measure(probabilities_of(before.logits_NK, 1.0), target_N, before.body_NP),
                "losses": total / num_ranks,
                "trained": torch.from_numpy(after.logits_NK),
                "weights": process.learner.state()["model"],
            }
    torch.save(found, f"{folder}/{num_ranks}-{rank}.pt")


def trained(clips: Path, folder: Path, num_ranks: int) -> list[dict[str, Any]]:
    """Train every network with some processes; return what each of them found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(train_all, (num_ranks, port, str(clips), str(folder)), num_ranks)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{num_ranks}-{rank}.pt", weights_only=True) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def one(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a single process finds, which is never killed."""
    (found,) = trained(clips, tmp_path_factory.mktemp("one"), 1)
    return found


@pytest.fixture(scope="module")
def more(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each of two and of three processes finds."""
    return {num_ranks: trained(clips, tmp_path_factory.mktemp("more"), num_ranks) for num_ranks in (2, 3)}


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("preset", SIZES)
def test_more_processes_give_the_scores_and_losses_of_one(
    preset: str, num_ranks: int, one: dict[str, Any], more: dict[int, list[dict[str, Any]]]
) -> None:
    alone, ranks = one[preset], more[num_ranks]
    first = ranks[0][preset]
    for other in ranks[1:]:
        assert torch.equal(other[preset]["trained"], first["trained"])
    assert first["metrics"] == pytest.approx(alone["metrics"], rel=1e-6)
    torch.testing.assert_close(first["logits"], alone["logits"], rtol=1e-4, atol=1e-5)
    # Batch norms of five values multiply what rounding differs in at every step, those of I3D a thousandfold.
    torch.testing.assert_close(first["losses"][:2], alone["losses"][:2], rtol=1e-5, atol=0)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-2, atol=0)


def train_saving(clips: Path, folder: Path, killed_in_step: int | None) -> None:
    """Train every network from its saved state on, saving after every step; with a step, end by SIGKILL in that one of all."""
    torch.set_num_threads(1)
    for preset in SIZES:
        process, run = Process(preset, clips), str(folder / preset)
        state = load_state(run) or RunState(0, torch.full((NUM_STEPS,), torch.nan), {})
        if state.step > 0:
            process.learner.load_state(state.learner)
        for loss in process.train(state.step):
            if state.step == killed_in_step:
                break
            state.losses[state.step] = loss
            state.step += 1
            state.learner = process.learner.state()
            save_state(run, state)
    if killed_in_step is not None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def killed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the states of every network after a process that was killed and one that went on."""
    folder, context = tmp_path_factory.mktemp("killed"), get_context("spawn")
    for killed_in_step, code in ((KILLED_IN_STEP, -signal.SIGKILL), (None, 0)):
        process = context.Process(target=train_saving, args=(clips, folder, killed_in_step))
        process.start()
        process.join()
        assert process.exitcode == code
    return folder


@pytest.mark.parametrize("preset", SIZES)
def test_a_killed_training_resumes_bit_for_bit(preset: str, one: dict[str, Any], killed: Path) -> None:
    state = load_state(str(killed / preset))
    assert state is not None
    assert state.step == NUM_STEPS
    assert torch.equal(state.losses, one[preset]["losses"])
    for name, value in one[preset]["weights"].items():
        assert torch.equal(value, state.learner["model"][name]), name
