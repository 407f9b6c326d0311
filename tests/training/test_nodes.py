"""Training over two nodes, one of which is lost after a notice. tests/test_end_to_end.py has one that is lost without."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from microaction.training.run import run_training
from microaction.training.state import saved_step
from tests.nodes import Nodes, require_namespaces
from tests.training.runs import BATCH_SIZE, NUM_STEPS, log_of, losses_of, settings, write_config

pytestmark = [pytest.mark.nodes, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
EPOCHS = 3
PROCESS = "ray::"
AFTER_NOTICE = "sleep 100"  # what the pod's command runs after it has announced the node's end
RECIPE = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "batch_norm": "frozen"}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (2, 2)) as running:
        yield running


def training_workers(nodes: Nodes, number: int) -> list[int]:
    return [
        pid for pid in nodes.processes(number, PROCESS) if "TrainWorker" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


@contextmanager
def paused(nodes: Nodes) -> Iterator[None]:
    """Stop the training workers meanwhile, so that training cannot end first, however fast it is."""
    pids = [pid for number in (0, 1) for pid in training_workers(nodes, number)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def wait_until(is_so: Callable[[], bool], driver: "subprocess.Popen[bytes]", nodes: Nodes) -> None:
    while not is_so():
        assert driver.poll() is None, f"the driver ended by itself: {nodes.log('driver')}"
        time.sleep(0.02)


def start(nodes: Nodes, data: Path, folder: Path, **changes: object) -> "subprocess.Popen[bytes]":
    """Start a run of two workers that continues with one; return when each node has one of them."""
    of = settings(data, folder, "run", recipe=RECIPE, num_workers=2, min_workers=1, **changes)
    driver = nodes.driver(sys.executable, "-m", "jobs.train", "--config", str(write_config(folder / "run.yaml", of)))
    wait_until(lambda: all(training_workers(nodes, number) for number in (0, 1)), driver, nodes)
    return driver


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, many: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The losses of the same run by one worker, which nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_training(settings(many, folder, "run", recipe=RECIPE))
    return losses_of(folder / "run")


def check_finished(driver: "subprocess.Popen[bytes]", nodes: Nodes, run: Path, undisturbed: np.ndarray) -> None:
    assert driver.wait() == 0, nodes.log("driver")
    assert len(log_of(run)) == EPOCHS
    assert (run / "best/config.json").exists()
    np.testing.assert_allclose(losses_of(run), undisturbed, rtol=1e-3)


def test_notice_of_a_nodes_end_saves_at_once(nodes: Nodes, many: Path, tmp_path: Path, undisturbed: np.ndarray) -> None:
    """Without a notice this run is saved only at the end of an epoch. The notice is what a pod of cluster/kuberay gives."""
    cluster = yaml.safe_load((ROOT / "cluster/kuberay/raycluster.yaml").read_text())
    (container,) = cluster["spec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"]
    driver, run = start(nodes, many, tmp_path, checkpoint_interval_s=1e6), tmp_path / "run"
    wait_until(lambda: saved_step(str(run)) >= NUM_STEPS, driver, nodes)
    with paused(nodes):
        nodes.run_pre_stop(1, container["lifecycle"]["preStop"]["exec"]["command"])
        wait_until(lambda: bool(nodes.processes(1, AFTER_NOTICE)), driver, nodes)
    wait_until(lambda: saved_step(str(run)) % NUM_STEPS > 0, driver, nodes)
    nodes.kill(1)
    check_finished(driver, nodes, run, undisturbed)
