"""Training commands that are killed and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray

from microaction.training.state import saved_step
from tests.training.runs import training_workers

ROOT = Path(__file__).parents[2]


class Job:
    """`microaction train` in a process of its own, on this session's Ray, started again after each of its deaths."""

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

    def wait(self, is_so: Callable[[], object]) -> None:
        """Return when something is so; fail if the job ends before."""
        while not is_so():
            assert self.driver.poll() is None, f"the driver ended by itself: {self.tail()}"
            time.sleep(0.02)

    def wait_for_step(self, run: Path, step: int) -> None:
        """Return when the state of a step is saved."""
        self.wait(lambda: saved_step(str(run)) >= step)

    def kill_driver(self) -> None:
        assert self.driver.poll() is None, f"the driver ended by itself: {self.tail()}"
        self.driver.kill()
        self.driver.wait()
        self.driver = self._started()

    def kill_worker(self, choice: random.Random) -> None:
        self.wait(training_workers)
        for pid in choice.sample(found := training_workers(), len(found)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended meanwhile, for example with its driver
            return
        self.kill_worker(choice)

    def tail(self) -> str:
        return self.config.with_suffix(".log").read_text()[-2000:]
