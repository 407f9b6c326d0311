"""Training runs that are as small as they can be, and what they leave behind."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from microaction.training.settings import TrainSettings
from microaction.training.state import load_state

NUM_STEPS = 21
BATCH_SIZE = 5  # no multiple of the numbers of processes


def settings(data: Path, storage: Path, name: str, **changes: object) -> TrainSettings:
    fields = {
        "train_list": f"{data}/train.txt",
        "val_list": f"{data}/val.txt",
        "train_videos": str(data),
        "val_videos": str(data),
        "storage_path": str(storage),
        "name": name,
        "model": {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.0},
        "preprocessing": {"short_side": 40, "crop": 32},
        "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01},
    }
    return TrainSettings.model_validate(fields | changes)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what differs between two runs that do the same: how long they took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def training_processes() -> list[int]:
    """Process IDs of the training processes of this session's Ray."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", "^ray::.*TrainWorker"]
    return [int(pid) for pid in subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()]


def kill_training_processes() -> int:
    """Sends SIGKILL to the training processes of this session's Ray; returns how many."""
    found = training_processes()
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def losses_of(run: Path) -> np.ndarray:
    """The loss of every step of a run, NaN for those to come."""
    state = load_state(str(run))
    assert state is not None
    return state.losses.numpy()


def saved_step(run: Path) -> int:
    """How many steps of the run are done and saved."""
    return max((int(path.stem.removeprefix("step-")) for path in run.glob("state/step-*.pt")), default=0)


def write_config(path: Path, of: TrainSettings) -> Path:
    """The settings as a file for `python -m jobs.train --config`."""
    path.write_text(yaml.safe_dump(json.loads(of.model_dump_json(exclude={"config"}, exclude_none=True))))
    return path
