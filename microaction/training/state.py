"""What a run resumes from: one file per saved step, written completely or not at all, by a thread beside training."""

import io
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pickle import UnpicklingError
from typing import Any

import torch

from microaction import storage
from microaction.training.errors import StateError

STATE_FOLDER = "state"
NUM_STATES_KEPT = 2
STATE_FORMAT = 2  # 2: the learner's average of the weights is `ema_model`
_STATE_NAME = re.compile(r"/step-(\d+)\.pt$")


@dataclass
class Epoch:
    """A finished epoch: number (from 1), learning rate at its end, clips that could not be read so far, metrics on the
    validation clips, how long it took, and when it ended (seconds since 1970)."""

    number: int
    learning_rate: float
    num_unreadable: int
    metrics: dict[str, float]
    timing: dict[str, float]
    ended_s: float


@dataclass
class RunState:
    """The state after `step` steps. `losses` has one number for each step of the run, NaN for future ones. `best_epoch` is the
    number of the epoch whose checkpoint is the best so far, `unreadable` maps clips' locations to reasons, and `learner` is
    `Learner.state()`."""

    step: int
    losses: torch.Tensor
    learner: dict[str, Any]
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None
    unreadable: dict[str, str] = field(default_factory=dict)


def save_state(run_uri: str, state: RunState) -> None:
    """Add the state to the run's folder, and delete all but the last `NUM_STATES_KEPT`."""
    file = io.BytesIO()
    torch.save({"format": STATE_FORMAT, **vars(state), "epochs": [asdict(epoch) for epoch in state.epochs]}, file)
    storage.write_bytes(storage.join(run_uri, STATE_FOLDER, f"step-{state.step:09d}.pt"), file.getvalue())
    for old in _saved(run_uri)[:-NUM_STATES_KEPT]:
        storage.delete_file(old)


def load_state(run_uri: str) -> RunState | None:
    """Return the latest state, on the CPU; None if there is none. Raises `StateError`."""
    saved = _saved(run_uri)
    if not saved:
        return None
    try:
        content = torch.load(io.BytesIO(storage.read_bytes(saved[-1])), map_location="cpu", weights_only=True)
        found = content.pop("format", 1)
        if found == STATE_FORMAT:
            return RunState(**content | {"epochs": [Epoch(**epoch) for epoch in content["epochs"]]})
    except (RuntimeError, TypeError, KeyError, AttributeError, ValueError, EOFError, UnpicklingError) as error:
        raise StateError(
            f"{saved[-1]} is not a complete saved state: delete it to resume from the state before it, or start again under "
            "another name"
        ) from error
    raise StateError(
        f"{saved[-1]} was written by another version of microaction (format {found}, this version reads {STATE_FORMAT}): start "
        "again under another name, or use the version that wrote it"
    )


def saved_step(run_uri: str) -> int:
    """Return how many steps of the run are done and saved."""
    return max((int(name[1]) for uri in _saved(run_uri) if (name := _STATE_NAME.search(uri))), default=0)


def _saved(run_uri: str) -> list[str]:
    """Return the URIs of the saved states, by step."""
    try:
        files = [file.uri for file in storage.list_files(storage.join(run_uri, STATE_FOLDER))]
    except FileNotFoundError:
        return []
    return sorted(uri for uri in files if _STATE_NAME.search(uri))


class BackgroundWriter:
    """Runs one write at a time beside training. The next call raises what failed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._current: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is running."""
        return self._current is not None and not self._current.done()

    def start(self, work: Callable[[], None]) -> None:
        """Wait for the running work, then start `work`."""
        self.wait()
        self._current = self._pool.submit(work)

    def wait(self) -> None:
        """Return when nothing is running."""
        current, self._current = self._current, None
        if current is not None:
            current.result()
