"""Training over two nodes, of which one is announced to go. tests/test_end_to_end.py has one that goes unannounced."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from microaction.training.run import run_training
from tests.nodes import Nodes, require_namespaces
from tests.training.runs import BATCH_SIZE, NUM_STEPS, log_of, losses_of, saved_step, settings, write_config

pytestmark = pytest.mark.nodes

ROOT = Path(__file__).parents[2]
EPOCHS = 3
PATIENCE_S = 300
PROCESS = "ray::"
RECIPE = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "batch_norm": "frozen"}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (2, 2)) as running:
        yield running


def training_processes(nodes: Nodes, number: int) -> list[int]:
    return [
        pid for pid in nodes.processes(number, PROCESS) if "TrainWorker" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def wait_until(is_so: Callable[[], bool], driver: "subprocess.Popen[bytes]", nodes: Nodes) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert driver.poll() is None, f"the driver ended by itself: {nodes.log('driver')}"
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S} s: {nodes.log('driver')}"
        time.sleep(0.02)


def start(nodes: Nodes, data: Path, folder: Path, **changes: object) -> "subprocess.Popen[bytes]":
    """A run of two training processes that goes on with one, and has one on each node now."""
    of = settings(data, folder, "run", recipe=RECIPE, num_workers=2, min_workers=1, **changes)
    driver = nodes.driver(sys.executable, "-m", "jobs.train", "--config", str(write_config(folder / "run.yaml", of)))
    wait_until(lambda: all(training_processes(nodes, number) for number in (0, 1)), driver, nodes)
    return driver


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, many: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The losses of the same run by one process that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_training(settings(many, folder, "run", recipe=RECIPE))
    return losses_of(folder / "run")


def check_finished(driver: "subprocess.Popen[bytes]", nodes: Nodes, run: Path, undisturbed: np.ndarray) -> None:
    assert driver.wait(PATIENCE_S) == 0, nodes.log("driver")
    assert len(log_of(run)) == EPOCHS
    assert (run / "best/config.json").exists()
    np.testing.assert_allclose(losses_of(run), undisturbed, rtol=1e-3)


@pytest.mark.timeout(900)
def test_notice_that_a_node_is_about_to_go_saves_at_once(
    nodes: Nodes, many: Path, tmp_path: Path, undisturbed: np.ndarray
) -> None:
    """Otherwise it is saved at the end of an epoch alone. The notice is what a pod of cluster/kuberay gives."""
    cluster = yaml.safe_load((ROOT / "cluster/kuberay/raycluster.yaml").read_text())
    (container,) = cluster["spec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"]
    driver, run = start(nodes, many, tmp_path, checkpoint_interval_s=1e6), tmp_path / "run"
    wait_until(lambda: saved_step(run) >= NUM_STEPS, driver, nodes)
    nodes.run_pre_stop(1, container["lifecycle"]["preStop"]["exec"]["command"])
    wait_until(lambda: saved_step(run) % NUM_STEPS > 0, driver, nodes)
    nodes.kill(1)
    check_finished(driver, nodes, run, undisturbed)
