"""The learner without Ray: what a step depends on, and what its state holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from microaction.models import CheckpointConfig, default_label_embeddings, save_checkpoint
from microaction.taxonomy import ACTIONS
from microaction.training.learner import RecognitionLearner, seed_of
from tests.training.runs import settings

NUM_STEPS = 10
NUM_FRAMES = 4
CPU = torch.device("cpu")


def learner(*, seed: int = 0, dropout: float = 0.5, init: str | None = None, **recipe: Any) -> RecognitionLearner:
    return make_learner(seed=seed, dropout=dropout, init=init, recipe=recipe)


def make_learner(
    *, seed: int = 0, dropout: float = 0.5, init: str | None = None, recipe: dict[str, Any], resumes: bool = False
) -> RecognitionLearner:
    embeddings_KD = default_label_embeddings()
    model = {
        "width": 8,
        "depths": (1, 1, 1, 1),
        "num_frames": NUM_FRAMES,
        "dropout": dropout,
        "embedding_dim": embeddings_KD.shape[1],
    }
    changes: dict[str, object] = {
        "model": model,
        "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.05} | recipe,
        "seed": seed,
        "init": init,
    }
    of = settings(Path("-"), Path("-"), "x", **changes)
    return RecognitionLearner(of, embeddings_KD, NUM_STEPS, CPU, resumes=resumes)


def batch(number: int, num_clips: int = 4) -> tuple[Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(number)
    frames_BTHWC = torch.randint(0, 256, (num_clips, NUM_FRAMES, 32, 32, 3), dtype=torch.uint8, generator=generator)
    target_B = torch.randint(0, 52, (num_clips,), generator=generator)
    return frames_BTHWC, target_B, [number * 10 + i for i in range(num_clips)]


def weights(of: RecognitionLearner) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in of.model.parameters()])


def test_a_loaded_state_continues_bit_for_bit() -> None:
    """tests/training/test_state.py has its way through a file."""
    whole, first = (learner(ema_decay=0.9) for _ in range(2))
    for step in range(3):
        whole.train_step(*batch(step), step)
        first.train_step(*batch(step), step)
    second = learner(ema_decay=0.9)
    second.train_step(*batch(9), 0)  # what it was before has no effect
    second.load_state(first.state())
    for step in range(3, 6):
        assert torch.equal(whole.train_step(*batch(step), step), second.train_step(*batch(step), step))
    for name, value in whole.eval_model.state_dict().items():
        assert torch.equal(value, second.eval_model.state_dict()[name]), name
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.slow
def test_a_compiled_network_trains_the_same() -> None:
    eager, compiled = learner(), learner(compile=True)
    for step, num_clips in enumerate((4, 4, 3)):  # one clip of the last batch could not be read
        losses = [each.train_step(*batch(step, num_clips), step) for each in (eager, compiled)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights(eager), weights(compiled), rtol=1e-3, atol=1e-4)
    assert eager.state()["model"].keys() == compiled.state()["model"].keys(), "checkpoints fit either way"


def test_a_state_is_a_copy() -> None:
    one = learner()
    one.train_step(*batch(0), 0)
    state, before = one.state(), one.state()
    one.train_step(*batch(1), 1)
    assert torch.equal(state["model"]["action.weight"], before["model"]["action.weight"])
    assert not torch.equal(state["model"]["action.weight"], one.model.state_dict()["action.weight"])


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_micro_batches_add_up_to_the_batch(micro_batch_size: int) -> None:
    """With frozen statistics: others depend on which clips are in a forward pass."""
    whole, parts = learner(batch_norm="frozen"), learner(batch_norm="frozen", micro_batch_size=micro_batch_size)
    for step in range(3):
        losses = [each.train_step(*batch(step), step) for each in (whole, parts)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)


def test_frozen_batch_norms_train_only_their_weights() -> None:
    frozen, local = learner(batch_norm="frozen"), learner()
    for each in (frozen, local):
        each.train_step(*batch(0), 0)
    states = [each.model.state_dict() for each in (frozen, local)]
    assert [bool((state["backbone.bn1.running_mean"] == 0).all()) for state in states] == [True, False]
    assert not (states[0]["backbone.bn1.weight"] == 1).all()


def test_dropout_depends_on_seed_step_and_clip_alone() -> None:
    one, other_seed = learner(), learner(seed=1)

    def mask(of: RecognitionLearner, clips: list[int], step: int) -> Tensor:
        mask = of._dropout_mask(clips, step)
        assert mask is not None
        return mask

    both = mask(one, [3, 4], 7)
    assert torch.equal(both[1], mask(one, [4, 9, 1], 7)[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, mask(one, [3, 4], 8))
    assert not torch.equal(both, mask(other_seed, [3, 4], 7))
    assert set(both.flatten().tolist()) == {0.0, 2.0}
    assert both.mean().item() == pytest.approx(1, abs=0.05)
    assert learner(dropout=0.0)._dropout_mask([1], 0) is None


def test_unreadable_clips_leave_the_others_weight_unchanged() -> None:
    """A batch's loss is its sum over the batch's size, so that a clip's part does not depend on the rest of the batch."""
    whole, some = learner(batch_norm="frozen"), learner(batch_norm="frozen")
    frames, target, index = batch(0)
    of_all = whole.train_step(frames, target, index, 0)
    of_three = some.train_step(frames[:3], target[:3], index[:3], 0)
    of_one = learner(batch_norm="frozen").train_step(frames[3:], target[3:], index[3:], 0)
    torch.testing.assert_close(of_three + of_one, of_all)
    nothing = learner(batch_norm="frozen")
    before = weights(nothing)
    assert nothing.train_step(frames[:0], target[:0], [], 0).item() == 0
    torch.testing.assert_close(weights(nothing), before, rtol=1e-3, atol=1e-5)  # weight decay alone


def test_the_average_of_the_weights_is_evaluated() -> None:
    plain, averaged = learner(), learner(ema_decay=0.8)
    expected: dict[str, Tensor] = {}
    for step in range(3):
        losses = [each.train_step(*batch(step), step) for each in (plain, averaged)]
        assert torch.equal(*losses), "training itself is the same"
        now = {name: value.clone() for name, value in averaged.model.state_dict().items()}
        for name, value in now.items():
            expected[name] = 0.8 * expected[name] + 0.2 * value if step > 0 else value
    assert plain.eval_model is plain.model
    found = averaged.eval_model.state_dict()
    assert found.keys() == now.keys()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], msg=name)
    assert not torch.equal(found["action.weight"], now["action.weight"])
    frames_BTHWC, _, _ = batch(9)
    assert not torch.equal(averaged.predict(frames_BTHWC).logits, plain.predict(frames_BTHWC).logits)


def test_bf16_trains_close_to_fp32_and_keeps_fp32_weights() -> None:
    each = [learner(precision=precision, learning_rate=0.01) for precision in ("fp32", "bf16")]
    losses = [sum(one.train_step(*batch(step), step).item() for step in range(4)) / 4 for one in each]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert {value.dtype for value in each[1].eval_model.state_dict().values()} == {torch.float32, torch.int64}


def test_training_starts_from_the_given_weights(tmp_path: Path) -> None:
    first = learner(seed=1)
    first.train_step(*batch(0), 0)
    config = CheckpointConfig(
        model=first.settings.model,
        preprocessing=first.settings.preprocessing,
        labels=ACTIONS,
        recipe={},
        versions={},
        metrics={},
    )
    save_checkpoint(first.eval_model, config, str(tmp_path))
    assert torch.equal(weights(learner(seed=2, init=str(tmp_path))), weights(first))
    resumed = make_learner(seed=2, init=f"{tmp_path}/deleted", recipe={}, resumes=True)
    assert torch.equal(weights(resumed), weights(learner(seed=2))), (
        "a resumed run has a state, and needs no other weights"
    )


def test_seeds_differ_by_every_number_and_fit_torch() -> None:
    seeds = {seed_of(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
