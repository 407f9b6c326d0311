"""What ends a run in one line: limits that workers check, and errors on their way from a worker to the driver."""

import errno
import os
from types import SimpleNamespace

import pytest
import ray.exceptions
from ray.train import WorkerGroupError

from microaction.clips.manifest import Clip
from microaction.errors import DecodeError
from microaction.storage import StoreUnavailableError
from microaction.training.errors import StateError, TrainingError
from microaction.training.loop import Trainer
from microaction.training.run import _cause


def trainer(num_clips: int, max_unreadable_fraction: float) -> SimpleNamespace:
    """Return what `Trainer._leave_out` uses of a trainer."""
    return SimpleNamespace(
        state=SimpleNamespace(unreadable={}),
        train_clips=[Clip(f"{i}.mp4", f"/v/{i}.mp4", 0) for i in range(num_clips - 1)],
        val_clips=[Clip("val.mp4", "/v/val.mp4", 0)],
        settings=SimpleNamespace(max_unreadable_fraction=max_unreadable_fraction),
    )


def test_unreadable_clips_are_left_out_up_to_the_limit() -> None:
    of = trainer(20, 0.1)
    for name in ("1", "2", "2"):  # a clip is counted once
        Trainer._leave_out(of, DecodeError(f"/v/{name}.mp4", "no frames"))  # type: ignore[arg-type]
    assert of.state.unreadable == {"/v/1.mp4": "no frames", "/v/2.mp4": "no frames"}
    with pytest.raises(
        DecodeError,
        match=r"^/v/3\.mp4: cut short; 3 of 20 clips could not be read so far, more than max_unreadable_fraction \(0\.1\)",
    ):
        Trainer._leave_out(of, DecodeError("/v/3.mp4", "cut short"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [DecodeError("/v/a.mp4", "no frames"), StateError("damaged"), TrainingError("the loss is nan")]
)
def test_an_error_of_a_worker_keeps_its_kind(error: Exception) -> None:
    wrapped = ray.exceptions.RayTaskError("train", "Traceback …", error).as_instanceof_cause()
    for failure in (error, wrapped, SimpleNamespace(_base_exc=error)):
        found = _cause(WorkerGroupError("a worker failed", {1: failure}))
        assert type(found) is type(error)
        assert str(found) == str(error)


def test_a_full_disk_of_a_worker_is_one_line() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/state.pt")
    wrapped = ray.exceptions.RayTaskError("train", "Traceback …", error).as_instanceof_cause()
    found = _cause(WorkerGroupError("a worker failed", {0: wrapped}))
    assert isinstance(found, StoreUnavailableError)
    assert str(found).startswith("no space left for /out/state.pt")


def test_other_errors_of_workers_have_no_cause_of_ours() -> None:
    assert _cause(WorkerGroupError("a worker failed", {0: RuntimeError("out of memory")})) is None
