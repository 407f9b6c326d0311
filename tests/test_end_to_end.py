"""The whole story on real parts: a bucket, three nodes, submitted jobs, and faults in between."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
import yaml

import microaction
from microaction import registry, storage
from microaction.training.order import steps_per_epoch
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from microaction.training.state import load_state, saved_step
from tests.benchmarks.videos import write_long_video
from tests.ceph import S3Server
from tests.conftest import CommandResult
from tests.nodes import Nodes, require_namespaces, workers
from tests.proxy import counting_proxy
from tests.retraining.clips import RECIPE, TINY, write_clips
from tests.training.runs import write_config
from tests.training.test_run import trained_without_ray

pytestmark = [pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

ROOT = Path(__file__).parents[1]
WORKER_NODES = (1, 2)
HANG_LIMIT_S = 3600  # a job takes a minute
POLL_S = 0.1
NUM_VIDEOS, VIDEO_S = 4, 360  # three blocks of work each
EPOCHS, BATCH_SIZE = 4, 4
AFTER_NOTICE = "sleep 100"  # what the pod's command runs after it has announced the node's end
SOURCE, OUT = "s3://interviews/archive", "s3://results/all"
MODELS = f"{OUT}/models"
BATCH_WINDOWS = 16  # on the node that reports a GPU as in this process, so that results are the same to the last bit
LABEL = (
    *("--model", f"{MODELS}@production", "--catalog", f"{OUT}/catalog.parquet", "--people", "off"),
    *("--precision", "fp32", "--batch-windows", str(BATCH_WINDOWS)),
)

Job = tuple["subprocess.Popen[bytes]", str]
Row = dict[str, Any]


class Cluster:
    """Three nodes, the first of which reports a GPU, and the jobs on them."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self._num_jobs = nodes, 0

    def start(self, name: str, *arguments: str) -> Job:
        """Submit a job; return its submitter and the name of its log."""
        self._num_jobs += 1
        log = f"{self._num_jobs}-{name}"
        return self.nodes.submit(log, ROOT, "python", "-m", f"jobs.{name}", *arguments), log

    def end(self, job: "subprocess.Popen[bytes]", log: str, *, code: int = 0) -> str:
        """Wait for a job's end; return its log."""
        failed = job.wait(HANG_LIMIT_S) != 0
        text = self.nodes.log(log)
        found = re.search(r"exit code (\d+)", text)
        assert failed == (found is not None), text
        assert (int(found[1]) if found else 0) == code, text
        return text

    def wait(self, condition: Callable[[], bool], job: "subprocess.Popen[bytes]", log: str) -> None:
        """Wait for something that happens before a job's end."""
        while not condition():
            assert job.poll() is None, f"the job ended by itself: {self.nodes.log(log)}"
            time.sleep(POLL_S)

    def lose_worker_nodes(self, killed: int, job: "subprocess.Popen[bytes]", log: str) -> None:
        """Kill a node, and cut the link of the other one until it counts as dead."""
        (cut,) = set(WORKER_NODES) - {killed}
        self.nodes.kill(killed)
        self.nodes.disconnect(cut)
        assert job.poll() is None, f"the job ended before the faults: {self.nodes.log(log)}"
        self.nodes.await_loss(cut)
        self.nodes.reconnect(cut)

    def replace_worker_nodes(self) -> None:
        for number in WORKER_NODES:
            self.nodes.replace(number)


@pytest.fixture
def cluster(s3: S3Server) -> Iterator[Cluster]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as name:
        folder = Path(name)
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        environment = s3.environment | {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),  # as if installed: a submission leaves the detector's weights behind
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        nodes = Nodes(folder, (2, 2, 2), num_gpus=(1, 0, 0), environment=environment, with_dashboard=True)
        with nodes.network(), counting_proxy(s3.endpoint, host=nodes.join_host()) as proxy:
            nodes.environment["AWS_ENDPOINT_URL"] = proxy.endpoint
            with nodes:
                yield Cluster(nodes)


def upload(folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{uri}/{path.relative_to(folder)}", path.read_bytes())


def tables(out: str) -> dict[str, list[Row]]:
    """Return the rows of a run's public tables."""
    record = json.loads(storage.read_bytes(f"{out}/_publication.json"))
    found = {}
    for name, uri in record["tables"].items():
        filesystem, folder = storage.open_filesystem(uri)
        found[name] = pads.dataset(folder, filesystem=filesystem).to_table().to_pylist()
    return found


def by_time(rows: list[Row]) -> list[Row]:
    """Return rows by time, without the settings that differ between nodes with and without a GPU."""
    rows = [{name: value for name, value in row.items() if name != "settings_digest"} for row in rows]
    return sorted(rows, key=lambda row: (row["start_s"], row.get("action_id", 0)))


def num_files(uri: str) -> int:
    try:
        return len(list(storage.list_files(uri)))
    except FileNotFoundError:
        return 0


@contextmanager
def paused(pids: list[int]) -> Iterator[None]:
    """Stop processes meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_from_a_bucket_of_videos_to_a_better_model(
    cluster: Cluster, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    lines = catalog_and_pack(cluster, tmp_path)
    train_under_faults(cluster, tmp_path)
    cluster.replace_worker_nodes()
    for command in (("add", MODELS, f"{OUT}/runs/disturbed/best", "--name", "first"), ("promote", MODELS, "first")):
        assert job("registry", *command).returncode == 0
    before = label_under_faults(cluster)
    cluster.replace_worker_nodes()
    better = promote_a_better_model(cluster, tmp_path, lines)
    below = str(np.median([window["probability"] for window in before]))
    uncertain = ("--relabel", "uncertain", "--base-run", f"{OUT}/labels", "--relabel-below", below)
    cluster.end(*cluster.start("label", SOURCE, f"{OUT}/newer", *LABEL, *uncertain))
    windows = tables(f"{OUT}/newer")["windows"]
    assert len(windows) == len(before)
    models = {window["model"] for window in windows}
    assert {f"{MODELS}/{better}"} <= models <= {f"{MODELS}/{better}", f"{MODELS}/first"}
    assert job("registry", "rollback", MODELS, "--reason", "as a test").returncode == 0
    assert registry.production(MODELS).version == "first"


def catalog_and_pack(cluster: Cluster, folder: Path) -> list[str]:
    """Upload videos and labeled clips, and prepare both at once; return the lines of the clips' list."""
    (folder / "archive").mkdir()
    write_long_video(folder / "archive/0.mp4", duration_s=VIDEO_S, size=(160, 120), loop_s=20)
    for number in range(1, NUM_VIDEOS):
        os.link(folder / "archive/0.mp4", folder / f"archive/{number}.mp4")
    lines = write_clips(folder / "clips", "abcdef", takes=3)
    (folder / "clips/list.txt").write_text("".join(lines))
    upload(folder / "archive", SOURCE)
    upload(folder / "clips", "s3://interviews/clips")
    clips = ("--clips-list", "s3://interviews/clips/list.txt", "--videos", "s3://interviews/clips/videos")
    catalog = cluster.start("catalog", SOURCE, f"{OUT}/catalog.parquet")
    pack = cluster.start("pack", *clips, "--out", f"{OUT}/packed", "--short-side", "40")
    for job in (catalog, pack):
        cluster.end(*job)
    return lines


def train_under_faults(cluster: Cluster, folder: Path) -> None:
    """Train while a node is lost after a notice and another one without: the losses are those of one learner without Ray.

    The state is saved at the end of every epoch, and at once after the notice, which is what a pod of cluster/kuberay gives.
    """
    # Small steps: large ones amplify a difference in the last digit.
    recipe = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "batch_norm": "frozen"}
    fields = {
        "train_list": f"{OUT}/packed/list.parquet",
        "train_videos": f"{OUT}/packed/videos",
        "split_by": "subject",
        "val_fraction": 0.3,
        "storage_path": f"{OUT}/runs",
        "name": "disturbed",
        "num_workers": 2,
        "min_workers": 1,
        "checkpoint_interval_s": 1e6,
        "recipe": recipe,
    }
    settings, run = TrainSettings.model_validate(TINY | fields), f"{OUT}/runs/disturbed"
    num_steps = steps_per_epoch(len(read_splits(settings)[0]), BATCH_SIZE)
    job = cluster.start("train", "--config", str(write_config(folder / "train.yaml", settings)))
    cluster.wait(lambda: saved_step(run) >= num_steps, *job)
    leaving = next(number for number in WORKER_NODES if workers(cluster.nodes, "TrainWorker", [number]))
    with paused(workers(cluster.nodes, "TrainWorker")):  # so that training cannot end first, however fast it is
        cluster.nodes.run_pre_stop(leaving, pre_stop_command())
        cluster.wait(lambda: bool(cluster.nodes.processes(leaving, AFTER_NOTICE)), *job)
    cluster.wait(lambda: saved_step(run) % num_steps > 0, *job)
    cluster.lose_worker_nodes(leaving, *job)
    cluster.end(*job)
    assert len(storage.read_bytes(f"{run}/metrics.jsonl").splitlines()) == EPOCHS
    state = load_state(run)
    assert state is not None
    losses, _ = trained_without_ray(settings, "")
    np.testing.assert_allclose(state.losses.numpy(), losses, rtol=1e-3)


def pre_stop_command() -> list[str]:
    """Return what a pod of cluster/kuberay runs before it ends."""
    cluster = yaml.safe_load((ROOT / "cluster/kuberay/raycluster.yaml").read_text())
    (container,) = cluster["spec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"]
    command: list[str] = container["lifecycle"]["preStop"]["exec"]["command"]
    return command


def label_under_faults(cluster: Cluster) -> list[Row]:
    """Label while nodes are lost: the rows are those of each video labeled alone, in this process. Return the windows."""
    out = f"{OUT}/labels"
    job = cluster.start("label", SOURCE, out, *LABEL)
    cluster.wait(lambda: num_files(f"{out}/_chunks") > 0, *job)
    cluster.lose_worker_nodes(WORKER_NODES[0], *job)
    cluster.end(*job)
    found = tables(out)
    for video in found["videos"]:
        how = {"precision": "fp32", "batch_windows": BATCH_WINDOWS, "people": "off"}
        alone = microaction.label_video(video["video"], f"{MODELS}@production", **how)
        for name in ("windows", "events"):
            rows = [row for row in found[name] if row["video"] == video["video"]]
            assert by_time(rows) == by_time(getattr(alone, name).to_pylist()), name
        assert (video["covered_s"], video["failed_s"]) == pytest.approx((VIDEO_S, 0))
        assert video["num_windows"] == len(alone.windows)
    assert len(found["videos"]) == NUM_VIDEOS
    assert found["failures"] == []
    assert {window["model"] for window in found["windows"]} == {f"{MODELS}/first"}
    return found["windows"]


def promote_a_better_model(cluster: Cluster, folder: Path, lines: list[str]) -> str:
    """Retrain on labels of more subjects, while a second retraining is refused; return the version in production.

    tests/retraining/test_run.py has one that is rejected.
    """
    new = write_clips(folder / "labels", "ghijkl")
    (folder / "labels/1.txt").write_text("".join([*lines, *new]))
    upload(folder / "labels", "s3://interviews/labels")
    gates = {
        "f1_mean_margin": -0.1,
        "class_f1_margin": 0.3,
        "min_support": 2,
        "calibration_margin": 0.3,
        "min_held_out": 8,
    }
    # More processes than reported GPUs, so that none is requested: nothing can be trained on those.
    retraining = {"min_new": 8, "val_fraction": 0.2, "recipe": RECIPE, "gates": gates, "num_workers": 2}
    (folder / "retrain.yaml").write_text(yaml.safe_dump(retraining))
    locations = ("--dataset", f"{OUT}/packed", "--labels", "s3://interviews/labels", "--work", f"{OUT}/retraining")
    retrain = ("retrain", MODELS, *locations, "--config", str(folder / "retrain.yaml"))
    first = cluster.start(*retrain)
    cluster.wait(lambda: num_files(f"{MODELS}/_retrain") > 0, *first)
    assert "is running in" in cluster.end(*cluster.start(*retrain), code=1)
    cluster.end(*first)
    better = registry.production(MODELS).version
    assert better != "first"
    return better
