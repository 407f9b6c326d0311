"""Training runs that are as small as possible, and what they leave behind."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import accuracy_score, f1_score

from microaction.taxonomy import BODY_PART_OF
from microaction.training.settings import TrainSettings
from microaction.training.state import load_state

NUM_STEPS = 21
BATCH_SIZE = 5  # not a multiple of the numbers of workers


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
    """Return the lines of metrics.jsonl without `timing`, the only entry in which two equal runs differ."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def training_workers() -> list[int]:
    """Return the process IDs of the training workers of this session's Ray."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", "^ray::.*TrainWorker"]
    return [int(pid) for pid in subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()]


def losses_of(run: Path) -> np.ndarray:
    """Return the loss of every step of a run, NaN for future ones."""
    state = load_state(str(run))
    assert state is not None
    return state.losses.numpy()


def write_config(path: Path, of: TrainSettings) -> Path:
    """Write the settings as a file for `microaction train --config`."""
    path.write_text(yaml.safe_dump(json.loads(of.model_dump_json(exclude={"config"}, exclude_unset=True))))
    return path


def check_metrics(predictions: Path, listed: list[str], metrics: dict[str, float]) -> None:
    """Assert that the metrics are exactly scikit-learn's on the predictions, which are every listed clip's, once, in order."""
    table = pq.read_table(predictions)
    rows = zip(table["clip"].to_pylist(), table["target"].to_pylist(), strict=True)
    assert [f"{clip} {target}" for clip, target in rows] == listed
    target_N, body = table["target"].to_numpy(), np.array(BODY_PART_OF)
    predicted_N = np.stack(table["probabilities"].to_numpy()).argmax(axis=1)
    assert metrics["action_top1"] == accuracy_score(target_N, predicted_N)
    assert metrics["body_top1"] == accuracy_score(body[target_N], body[predicted_N])
    for average in ("macro", "micro"):
        assert metrics[f"action_f1_{average}"] == f1_score(target_N, predicted_N, average=average)
        assert metrics[f"body_f1_{average}"] == f1_score(body[target_N], body[predicted_N], average=average)
