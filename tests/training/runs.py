"""Training runs that are as small as they can be, and what they leave behind."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from microaction.config import TrainSettings


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


def kill_training_processes(num: int | None = None) -> int:
    """Sends SIGKILL to training processes of this session's Ray (all, or the first `num`); returns how many."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", "^ray::.*TrainWorker"]
    found = subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()[:num]
    for pid in found:
        os.kill(int(pid), signal.SIGKILL)
    return len(found)
