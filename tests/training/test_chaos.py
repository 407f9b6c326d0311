"""A training that is killed again and again, at any point, and started again: it ends as one that was never disturbed."""

import math
import os
import random
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from microaction.models import load_checkpoint
from microaction.training.run import run_training
from microaction.training.state import saved_step
from tests.training.chaos import Job
from tests.training.runs import BATCH_SIZE, NUM_STEPS, log_of, settings, write_config

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

KILLS = int(os.environ.get("CHAOS_KILLS", "2"))  # `make chaos`: 20
EPOCHS = max(2, KILLS * 3 // 10)
LAST_STEP = EPOCHS * NUM_STEPS - 15  # kills come before it, however fast training is
MAX_DELAY_S = 12.0
SEED = 4


@pytest.mark.timeout(1800 + 300 * KILLS)
def test_kills_of_workers_and_drivers_change_nothing(many: Path, tmp_path: Path) -> None:
    """Half of the kills come at random times after the one before, the others when training reaches a random step."""
    recipe = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.02, "ema_decay": 0.9, "class_balance": 0.5}
    changes = {"recipe": recipe, "num_workers": 2, "checkpoint_interval_s": 0.01, "max_failures": KILLS}
    whole = run_training(settings(many, tmp_path, "whole", **changes))

    choice = random.Random(SEED)
    run = tmp_path / "killed"
    victims = ["driver", "worker"] * (KILLS // 2)
    choice.shuffle(victims)
    at_steps = sorted(choice.sample(range(1, LAST_STEP), KILLS // 2))
    delays_s = [choice.uniform(0, MAX_DELAY_S) for _ in at_steps]
    job = Job(write_config(tmp_path / "killed.yaml", settings(many, tmp_path, "killed", **changes)))
    try:
        for at_step, delay_s in zip(at_steps, delays_s, strict=True):
            job.wait(partial(has_reached, run, at_step))
            kill(job, victims.pop(), choice)
            job.wait(partial(has_reached, run, LAST_STEP, or_time_s=time.monotonic() + delay_s))
            kill(job, victims.pop(), choice)
        assert victims == []
        assert job.driver.wait() == 0, job.tail()
    finally:
        job.driver.kill()

    assert log_of(run) == log_of(tmp_path / "whole")
    checkpoints = [load_checkpoint(str(folder / "best")) for folder in (tmp_path / "whole", run)]
    assert checkpoints[0].config.metrics == checkpoints[1].config.metrics == whole.metrics
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    predictions = [(folder / "best/validation.parquet").read_bytes() for folder in (tmp_path / "whole", run)]
    assert predictions[0] == predictions[1]
    left = {path.name for path in run.iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}, "the attempts leave nothing behind"


def has_reached(run: Path, step: int, or_time_s: float = math.inf) -> bool:
    return saved_step(str(run)) >= step or time.monotonic() >= or_time_s


def kill(job: Job, victim: str, choice: random.Random) -> None:
    if victim == "driver":
        job.kill_driver()
    else:
        job.kill_worker(choice)
