"""What a run resumes from, as files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from microaction.training.errors import StateError
from microaction.training.state import BackgroundWriter, Epoch, RunState, load_state, save_state

NUM_STEPS = 20


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    assert load_state(str(tmp_path)) is None
    learner = {"model": {"weight": torch.randn(3)}, "optimizer": {"state": {0: torch.randn(2)}, "param_groups": [{}]}}
    epoch = Epoch(1, 0.01, 2, {"f1_mean": 0.5}, {"train_s": 3.0}, 100.0)
    losses = torch.tensor([1.5] * 5 + [torch.nan] * 5)
    save_state(str(tmp_path), RunState(5, losses, learner, [epoch], 1, {"/v/a.mp4": "no frames"}))
    loaded = load_state(str(tmp_path))
    assert loaded is not None
    assert (loaded.step, loaded.epochs, loaded.best_epoch, loaded.unreadable) == (
        *(5, [epoch], 1),
        {"/v/a.mp4": "no frames"},
    )
    torch.testing.assert_close(loaded.losses, losses, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(loaded.learner["model"]["weight"], learner["model"]["weight"])  # type: ignore[index]
    assert torch.equal(loaded.learner["optimizer"]["state"][0], learner["optimizer"]["state"][0])  # type: ignore[index]


def test_only_the_last_two_states_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_state(str(tmp_path), RunState(step, torch.zeros(NUM_STEPS), {}))
    assert [path.name for path in sorted((tmp_path / "state").iterdir())] == ["step-000000010.pt", "step-000000015.pt"]
    loaded = load_state(str(tmp_path))
    assert loaded is not None
    assert loaded.step == 15


@pytest.mark.parametrize(
    "content",
    [b"", b"cut short", b"not yet transferred\n" * 50, {"format": 2, "step": 1}, {"format": 2, "news": 1}, [1]],
)
def test_a_damaged_state_is_refused_with_a_way_out(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "state/step-000000015.pt"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        StateError,
        match=r"step-000000015\.pt is not a complete saved state: delete it to resume from the state before it",
    ):
        load_state(str(tmp_path))


def test_a_state_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    save_state(str(tmp_path), RunState(15, torch.zeros(NUM_STEPS), {"model": {"weight": torch.zeros(1000)}}))
    path = tmp_path / "state/step-000000015.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(StateError, match="is not a complete saved state"):
        load_state(str(tmp_path))


def test_a_state_of_the_earlier_format_is_refused(tmp_path: Path) -> None:
    """Format 1 had no number, and called the learner's average of the weights `average`."""
    path = tmp_path / "state/step-000000015.pt"
    path.parent.mkdir()
    before = {"step": 15, "losses": torch.zeros(20), "epochs": [], "best_epoch": None, "unreadable": {}}
    torch.save(before | {"learner": {"model": {}, "optimizer": {}, "average": {}}}, path)
    with pytest.raises(
        StateError, match=r"written by another version of microaction \(format 1, .* 2\): start again"
    ) as e:
        load_state(str(tmp_path))
    assert "\n" not in str(e.value)


def test_a_failed_background_write_is_raised_by_the_next_call() -> None:
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
