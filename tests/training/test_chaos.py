"""A training that is killed again and again, wherever it is, and started again: it ends as one that nobody touched."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import torch

from microaction.models import load_checkpoint
from microaction.training.run import run_training
from tests.training.runs import (
    BATCH_SIZE,
    NUM_STEPS,
    log_of,
    saved_step,
    settings,
    training_processes,
    write_config,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("CHAOS_KILLS", "2"))  # `make chaos`: 20
EPOCHS = max(3, KILLS * 3 // 10)
SEED = 4
PATIENCE_S = 200


class Job:
    """`python -m jobs.train` in a process of its own, on this session's Ray, started again after each of its deaths."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.driver = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        address = ray.get_runtime_context().gcs_address
        with self.config.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.train", "--config", str(self.config)],
                cwd=ROOT,
                env=os.environ | {"RAY_ADDRESS": address},
                stdout=log,
                stderr=log,
            )

    def kill_driver(self) -> None:
        assert self.driver.poll() is None, f"the driver ended by itself: {self.tail()}"
        self.driver.kill()
        self.driver.wait()
        self.driver = self._started()

    def kill_worker(self, choice: random.Random) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := training_processes()):
            assert self.driver.poll() is None, f"the driver ended by itself: {self.tail()}"
            assert time.monotonic() < deadline_s, f"no training process came back: {self.tail()}"
            time.sleep(0.05)
        os.kill(choice.choice(found), signal.SIGKILL)

    def tail(self) -> str:
        return self.config.with_suffix(".log").read_text()[-2000:]


@pytest.mark.timeout(1200)
def test_kills_of_workers_and_drivers_change_nothing(many: Path, tmp_path: Path) -> None:
    """Half of the kills fall at random times after the one before, the others where training has come to a random step."""
    recipe = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.02, "ema_decay": 0.9, "class_balance": 0.5}
    changes = {"recipe": recipe, "num_workers": 2, "checkpoint_interval_s": 0.01, "max_failures": KILLS}
    whole = run_training(settings(many, tmp_path, "whole", **changes))

    choice = random.Random(SEED)
    config = write_config(tmp_path / "killed.yaml", settings(many, tmp_path, "killed", **changes))
    run, num_steps = tmp_path / "killed", EPOCHS * NUM_STEPS
    at_steps = sorted(choice.sample(range(1, num_steps - 15), KILLS // 2))
    job = Job(config)
    killed: list[str] = []
    try:
        for at_step in at_steps:
            deadline_s = time.monotonic() + PATIENCE_S
            while saved_step(run) < at_step:
                assert job.driver.poll() is None, f"the driver ended by itself: {job.tail()}"
                assert time.monotonic() < deadline_s, f"training stands at step {saved_step(run)}: {job.tail()}"
                time.sleep(0.02)
            for delay_s in (0, choice.uniform(0, 12)):
                time.sleep(delay_s)
                victim = choice.choice(["driver", "worker"])
                if victim == "driver":
                    job.kill_driver()
                else:
                    job.kill_worker(choice)
                killed.append(victim)
        assert job.driver.wait(PATIENCE_S) == 0, job.tail()
    finally:
        job.driver.kill()
    assert len(killed) == KILLS
    assert min(killed.count(victim) for victim in ("driver", "worker")) >= max(1, KILLS // 4)

    assert log_of(run) == log_of(tmp_path / "whole")
    checkpoints = [load_checkpoint(str(folder / "best")) for folder in (tmp_path / "whole", run)]
    assert checkpoints[0].config.metrics == checkpoints[1].config.metrics == whole.metrics
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    predictions = [(folder / "best/validation.parquet").read_bytes() for folder in (tmp_path / "whole", run)]
    assert predictions[0] == predictions[1]
    left = {path.name for path in run.iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}, "nothing is left of the attempts"
