"""What people look at while a run continues: a line of JSON per epoch, and TensorBoard's curves."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from torch import Tensor

from microaction import storage
from microaction.training.state import Epoch

METRICS_FILE = "metrics.jsonl"
UNREADABLE_FILE = "unreadable.json"
TENSORBOARD_FILE = "tensorboard/events.out.tfevents.training"


def write_log(run_uri: str, epochs: Sequence[Epoch], losses: Tensor, unreadable: dict[str, str]) -> None:
    """Rewrite the run's log files completely, so that what is done twice after a failure is logged once."""
    lines = [json.dumps(metrics_line(epoch)) for epoch in epochs]
    storage.write_bytes(storage.join(run_uri, METRICS_FILE), "".join(f"{line}\n" for line in lines).encode())
    storage.write_bytes(storage.join(run_uri, TENSORBOARD_FILE), tensorboard_events(epochs, losses))
    if unreadable:
        listed = json.dumps(unreadable, indent=2, sort_keys=True).encode()
        storage.write_bytes(storage.join(run_uri, UNREADABLE_FILE), listed + b"\n")


def metrics_line(epoch: Epoch) -> dict[str, float | dict[str, float]]:
    """Return an epoch's line of metrics.jsonl."""
    return {
        "epoch": epoch.number,
        "learning_rate": epoch.learning_rate,
        "unreadable": epoch.num_unreadable,
        **epoch.metrics,
        "timing": epoch.timing,
    }


def tensorboard_events(epochs: Sequence[Epoch], losses: Tensor) -> bytes:
    """Return an event file: the loss of every step; learning rate, metrics and timing of every epoch, at its last step."""
    num_steps = len(losses) // max(1, len(epochs))
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for index, epoch in enumerate(epochs):
                steps = range(index * num_steps, (index + 1) * num_steps)
                for step in steps:
                    writer.add_scalar("train/loss", float(losses[step]), step + 1, epoch.ended_s)
                writer.add_scalar("train/learning_rate", epoch.learning_rate, steps[-1] + 1, epoch.ended_s)
                for group, values in (("validation", epoch.metrics), ("timing", epoch.timing)):
                    for name, value in values.items():
                        if name != "loss":
                            writer.add_scalar(
                                f"{group}/{name.replace('@', '_at_')}", value, steps[-1] + 1, epoch.ended_s
                            )
        (file,) = Path(folder).iterdir()
        return file.read_bytes()
