"""The learner without Ray: what a step hangs on, and what its state holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from microaction.models import default_label_embeddings
from microaction.training.learner import Learner, seed_of
from microaction.training.state import BackgroundWriter, RunState, StateError, load_state, save_state
from tests.training.runs import settings

NUM_STEPS = 10


def learner(*, seed: int = 0, dropout: float = 0.5, **recipe: Any) -> Learner:
    embeddings_KD = default_label_embeddings()
    model = {"width": 8, "depths": (1, 1, 1, 1), "dropout": dropout, "embedding_dim": embeddings_KD.shape[1]}
    changes = {"model": model, "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.05} | recipe, "seed": seed}
    return Learner(settings(Path("-"), Path("-"), "x", **changes), embeddings_KD, NUM_STEPS, torch.device("cpu"))


def batch(number: int, num_clips: int = 4) -> tuple[Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(number)
    frames_BTHWC = torch.randint(0, 256, (num_clips, 8, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return (
        frames_BTHWC,
        torch.randint(0, 52, (num_clips,), generator=generator),
        [number * 10 + i for i in range(num_clips)],
    )


def weights(of: Learner) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in of.model.parameters()])


def test_a_state_that_was_saved_and_loaded_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, first = (learner(ema_decay=0.9) for _ in range(2))
    for step in range(3):
        whole.train_step(*batch(step), step)
        first.train_step(*batch(step), step)
    save_state(str(tmp_path), RunState(3, torch.zeros(NUM_STEPS), first.state()))
    second = learner(ema_decay=0.9)
    second.train_step(*batch(9), 0)  # whatever it was before
    loaded = load_state(str(tmp_path))
    assert loaded is not None
    second.load_state(loaded.learner)
    for step in range(3, 6):
        assert torch.equal(whole.train_step(*batch(step), step), second.train_step(*batch(step), step))
    for name, value in whole.eval_model.state_dict().items():
        assert torch.equal(value, second.eval_model.state_dict()[name]), name
    assert torch.equal(weights(whole), weights(second))


def test_a_compiled_network_learns_the_same() -> None:
    eager, compiled = learner(), learner(compile=True)
    for step, num_clips in enumerate((4, 4, 3)):  # of the last batch one clip could not be read
        losses = [each.train_step(*batch(step, num_clips), step) for each in (eager, compiled)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights(eager), weights(compiled), rtol=1e-3, atol=1e-4)
    assert eager.state()["model"].keys() == compiled.state()["model"].keys(), "checkpoints fit either way"


def test_a_state_is_a_copy_that_the_next_step_does_not_change() -> None:
    one = learner()
    one.train_step(*batch(0), 0)
    state, before = one.state(), one.state()
    one.train_step(*batch(1), 1)
    assert torch.equal(state["model"]["action.weight"], before["model"]["action.weight"])
    assert not torch.equal(state["model"]["action.weight"], one.model.state_dict()["action.weight"])


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_parts_of_a_batch_add_up_to_it_where_the_statistics_do_not_hang_on_them(micro_batch_size: int) -> None:
    whole, parts = learner(batch_norm="frozen"), learner(batch_norm="frozen", micro_batch_size=micro_batch_size)
    for step in range(3):
        losses = [each.train_step(*batch(step), step) for each in (whole, parts)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)


def test_frozen_batch_norms_keep_their_statistics_and_train_their_weights() -> None:
    frozen, local = learner(batch_norm="frozen"), learner()
    for each in (frozen, local):
        each.train_step(*batch(0), 0)
    states = [each.model.state_dict() for each in (frozen, local)]
    assert [bool((state["backbone.bn1.running_mean"] == 0).all()) for state in states] == [True, False]
    assert not (states[0]["backbone.bn1.weight"] == 1).all()


def test_dropout_hangs_on_seed_step_and_clip_alone() -> None:
    one, other_seed = learner(), learner(seed=1)

    def kept(of: Learner, clips: list[int], step: int) -> Tensor:
        mask = of._dropout_mask(clips, step)
        assert mask is not None
        return mask

    both = kept(one, [3, 4], 7)
    assert torch.equal(both[1], kept(one, [4, 9, 1], 7)[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, kept(one, [3, 4], 8))
    assert not torch.equal(both, kept(other_seed, [3, 4], 7))
    assert set(both.flatten().tolist()) == {0.0, 2.0}
    assert both.mean().item() == pytest.approx(1, abs=0.05)
    assert learner(dropout=0.0)._dropout_mask([1], 0) is None


def test_clips_that_could_not_be_read_leave_the_others_weight_as_it_is() -> None:
    """A batch's loss is its sum over the batch's size, so that who shares the batch does not matter."""
    whole, some = learner(batch_norm="frozen"), learner(batch_norm="frozen")
    frames, target, index = batch(0)
    of_all = whole.train_step(frames, target, index, 0)
    of_three = some.train_step(frames[:3], target[:3], index[:3], 0)
    of_one = learner(batch_norm="frozen").train_step(frames[3:], target[3:], index[3:], 0)
    torch.testing.assert_close(of_three + of_one, of_all)
    nothing = learner(batch_norm="frozen")
    before = weights(nothing)
    assert nothing.train_step(frames[:0], target[:0], [], 0).item() == 0
    biases = weights(nothing)
    torch.testing.assert_close(biases, before, rtol=1e-3, atol=1e-5)  # weight decay alone


def test_only_the_last_states_are_kept_and_a_broken_one_is_said(tmp_path: Path) -> None:
    uri = str(tmp_path)
    assert load_state(uri) is None
    for step in (5, 10, 15):
        save_state(uri, RunState(step, torch.zeros(20), {}))
    assert [path.name for path in sorted((tmp_path / "state").iterdir())] == ["step-000000010.pt", "step-000000015.pt"]
    loaded = load_state(uri)
    assert loaded is not None
    assert loaded.step == 15
    (tmp_path / "state/step-000000015.pt").write_bytes(b"cut short")
    with pytest.raises(
        StateError,
        match=r"step-000000015\.pt is not a complete saved state of this version of microaction: delete it to resume",
    ):
        load_state(uri)


def test_what_fails_beside_training_is_raised_by_the_next_call() -> None:
    background = BackgroundWriter()

    def fail() -> None:
        raise OSError("the disk is full")

    background.start(fail)
    with pytest.raises(OSError, match="the disk is full"):
        background.wait()
    done: list[int] = []
    background.start(lambda: done.append(1))
    background.wait()
    assert done == [1]


def test_seeds_differ_by_every_number_and_fit_torch() -> None:
    seeds = {seed_of(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
