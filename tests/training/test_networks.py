"""Every network, at reduced size, is trained by the same learner: it learns, resumes bit for bit, and takes micro-batches."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from microaction.models import default_label_embeddings
from microaction.training.learner import RecognitionLearner
from microaction.training.run import with_embedding_dim
from tests.models.networks import SIDE, SMALL_NETWORKS
from tests.training.runs import settings

NUM_STEPS = 10
# The others differ from these in their sizes; test_processes.py resumes all of them.
FIRST_OF_FAMILIES = (
    "manet",
    "c3d",
    "i3d-r50",
    "slowfast-r50-8x8",
    "tin-r50",
    "video-swin-t",
    "timesformer",
    "uniformer-s",
    "vit-s",
)


def learner(preset: str, *, head: str = "plain", **recipe: object) -> RecognitionLearner:
    embeddings_KD = default_label_embeddings()
    fields = {name: value for name, value in SMALL_NETWORKS[preset].items() if name != "embedding_dim"}
    of = settings(
        Path("-"),
        Path("-"),
        "x",
        model={"preset": preset, "head": head} | fields,
        recipe={"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "base_batch_size": 4} | recipe,
        preprocessing={"short_side": SIDE, "crop": SIDE},
    )
    return RecognitionLearner(with_embedding_dim(of, embeddings_KD), embeddings_KD, NUM_STEPS, torch.device("cpu"))


def batch(of: RecognitionLearner, number: int) -> tuple[Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(number)
    size = (4, of.settings.model.num_frames, SIDE, SIDE, 3)
    frames_BTHWC = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return frames_BTHWC, torch.randint(0, 52, (4,), generator=generator), [number * 10 + i for i in range(4)]


@pytest.mark.parametrize("preset", FIRST_OF_FAMILIES)
def test_a_loaded_state_continues_bit_for_bit(preset: str) -> None:
    whole, first = (learner(preset, head="hierarchical") for _ in range(2))
    for step in range(2):
        whole.train_step(*batch(whole, step), step)
        first.train_step(*batch(first, step), step)
    second = learner(preset, head="hierarchical")
    second.load_state(first.state())
    for step in range(2, 4):
        assert torch.equal(whole.train_step(*batch(whole, step), step), second.train_step(*batch(second, step), step))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("preset", SMALL_NETWORKS)
def test_a_network_learns_a_batch(preset: str) -> None:
    of = learner(preset, warmup_epochs=0.0, schedule="cosine", epochs=4)
    clips = batch(of, 1)
    losses = [of.train_step(*clips, step).item() for step in range(12)]
    assert min(losses[-3:]) < losses[0]


@pytest.mark.parametrize("preset", ["i3d-r50", "video-swin-t", "timesformer", "uniformer-s", "vit-s", "c3d"])
def test_micro_batches_add_up_to_the_batch(preset: str) -> None:
    """With random depth too, which depends on the clip alone; with frozen statistics of batch norms."""
    whole, parts = (learner(preset, batch_norm="frozen", micro_batch_size=size) for size in (None, 1))
    for step in range(2):
        losses = [each.train_step(*batch(each, step), step) for each in (whole, parts)]
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_random_depth_depends_on_seed_step_and_clip_alone() -> None:
    of = learner("vit-s")
    both = of._drop_path_mask([3, 4], 7)
    alone = of._drop_path_mask([4], 7)
    assert both is not None
    assert alone is not None
    assert torch.equal(both[1], alone[0])
    assert both.shape == (2, len(of.model.drop_path_rates))
    many = torch.cat([mask for step in range(200) if (mask := of._drop_path_mask([1, 2], step)) is not None])
    torch.testing.assert_close(many.mean(dim=0), torch.ones(many.shape[1]), rtol=0, atol=0.1)
    assert (many[:, 0] == 1).all(), "the first block's rate is 0"


def test_checkpointed_blocks_train_the_same() -> None:
    plain, checkpointed = (learner("vit-s", gradient_checkpointing=each) for each in (False, True))
    for step in range(2):
        losses = [each.train_step(*batch(each, step), step) for each in (plain, checkpointed)]
        torch.testing.assert_close(*losses)
