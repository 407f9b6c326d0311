"""The whole story on real parts: a bucket, three nodes, submitted jobs, and faults in between."""

import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pytest
import yaml

from microaction import registry, storage
from microaction.training.state import load_state
from tests.benchmarks.videos import write_long_video
from tests.ceph import S3Server
from tests.conftest import CommandResult
from tests.nodes import Nodes, require_namespaces
from tests.proxy import counting_proxy
from tests.retraining.clips import RECIPE, TINY, write_clips
from tests.storage.test_s3 import run_job_as

pytestmark = [pytest.mark.nodes, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(4 * 3600)]

ROOT = Path(__file__).parents[1]
HEAD, KILLED, CUT = 0, 1, 2
HANG_LIMIT_S = 3600  # a job takes a minute
POLL_S = 0.1
NUM_VIDEOS, VIDEO_S = 4, 480
CUT_S = 15  # long enough for the node to be considered dead
SOURCE, OUT = "s3://interviews/archive", "s3://results/all"
MODELS = f"{OUT}/models"
LABEL = (
    "--model",
    f"{MODELS}@production",
    "--catalog",
    f"{OUT}/catalog.parquet",
    "--precision",
    "fp32",
    "--people",
    "off",
)


class Cluster:
    """Three nodes, the first of which reports a GPU, and the jobs on them."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self._folder, self._num_jobs = nodes, folder, 0

    def start(self, name: str, *arguments: str) -> tuple["subprocess.Popen[bytes]", str]:
        """Submit a job; return its submitter and the name of its log."""
        self._num_jobs += 1
        log = f"{self._num_jobs}-{name}"
        return self.nodes.submit(log, ROOT, "python", "-m", f"jobs.{name}", *arguments), log

    def run(self, name: str, *arguments: str, disturbed_when: Callable[[], bool] | None = None, code: int = 0) -> str:
        """Submit a job and wait for its end; return its log. With `disturbed_when`, a node dies and a link is cut meanwhile."""
        started_s = time.monotonic()
        job, log = self.start(name, *arguments)
        if disturbed_when is not None:
            self.wait(disturbed_when, job, log)
            self.nodes.kill(KILLED)
            self.nodes.disconnect(CUT)
            assert job.poll() is None, f"the job ended before the faults: {self.nodes.log(log)}"
            time.sleep(CUT_S)
            self.nodes.reconnect(CUT)
        ended, text = self.end(job, log)
        print(f"{log}: {time.monotonic() - started_s:.0f} s")
        assert ended == code, text
        return text

    def end(self, job: "subprocess.Popen[bytes]", log: str) -> tuple[int, str]:
        """Wait for a job's end; return its exit code and its log."""
        failed = job.wait(HANG_LIMIT_S) != 0
        text = self.nodes.log(log)
        code = re.search(r"exit code (\d+)", text)
        assert failed == (code is not None), text
        return int(code[1]) if code else 0, text

    def replace_lost(self) -> None:
        for number in (KILLED, CUT):
            self.nodes.replace(number)

    def wait(self, condition: Callable[[], bool], job: "subprocess.Popen[bytes]", log: str) -> None:
        while not condition():
            assert job.poll() is None, f"the job ended by itself: {self.nodes.log(log)}"
            time.sleep(POLL_S)


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
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        nodes = Nodes(folder, (2, 2, 2), num_gpus=(1, 0, 0), environment=environment, with_dashboard=True)
        with nodes.network(), counting_proxy(s3.endpoint, host=nodes.join_host()) as proxy:
            nodes.environment["AWS_ENDPOINT_URL"] = proxy.endpoint
            with nodes:
                yield Cluster(nodes, folder)


def upload(folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{uri}/{path.relative_to(folder)}", path.read_bytes())


def tables(out: str) -> dict[str, pd.DataFrame]:
    """Return the public tables of a run, sorted by video, time and action."""
    record = json.loads(storage.read_bytes(f"{out}/_publication.json"))
    found = {}
    for name, uri in record["tables"].items():
        filesystem, folder = storage.open_filesystem(uri)
        frame = pads.dataset(folder, filesystem=filesystem).to_table().to_pandas()
        order = [column for column in ("video", "start_s", "action_id") if column in frame]
        found[name] = frame.sort_values(order).reset_index(drop=True)
    return found


def num_files(uri: str) -> int:
    try:
        return len(list(storage.list_files(uri)))
    except FileNotFoundError:
        return 0


def test_from_a_bucket_of_videos_to_a_better_model(
    cluster: Cluster, s3: S3Server, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    lines = catalog_and_pack(cluster, tmp_path)
    train_under_faults(cluster, s3, tmp_path)
    cluster.replace_lost()
    for command in (("add", MODELS, f"{OUT}/runs/disturbed/best", "--name", "first"), ("promote", MODELS, "first")):
        assert job("registry", *command).returncode == 0
    num_windows = label_under_faults(cluster)
    cluster.replace_lost()
    better = promote_a_better_model(cluster, tmp_path, lines)
    uncertain = ("--relabel", "uncertain", "--base-run", f"{OUT}/labels", "--relabel-below", "0.3")
    cluster.run("label", SOURCE, f"{OUT}/newer", *LABEL, *uncertain)
    windows = tables(f"{OUT}/newer")["windows"]
    assert len(windows) == num_windows
    assert {f"{MODELS}/{better}"} <= set(windows["model"]) <= {f"{MODELS}/{better}", f"{MODELS}/first"}
    assert job("registry", "rollback", MODELS, "--reason", "as a test").returncode == 0
    assert registry.production(MODELS).version == "first"


def catalog_and_pack(cluster: Cluster, folder: Path) -> list[str]:
    """Upload videos and labeled clips; return the lines of the clips' list."""
    (folder / "archive").mkdir()
    for number in range(NUM_VIDEOS):
        write_long_video(folder / f"archive/{number}.mp4", duration_s=VIDEO_S, size=(160, 120), loop_s=20)
    lines = write_clips(folder / "clips", "abcdef", takes=3)
    (folder / "clips/list.txt").write_text("".join(lines))
    upload(folder / "archive", SOURCE)
    upload(folder / "clips", "s3://interviews/clips")
    cluster.run("catalog", SOURCE, f"{OUT}/catalog.parquet")
    clips = ("--clips-list", "s3://interviews/clips/list.txt", "--videos", "s3://interviews/clips/videos")
    cluster.run("pack", *clips, "--out", f"{OUT}/packed", "--short-side", "40")
    return lines


def train_under_faults(cluster: Cluster, s3: S3Server, folder: Path) -> None:
    """Train twice, once with faults: the losses are the same."""
    # Small steps: large ones amplify a difference in the last digit.
    recipe = RECIPE | {"batch_norm": "frozen", "learning_rate": 0.003, "epochs": 3}
    training = TINY | {
        "train_list": f"{OUT}/packed/list.parquet",
        "train_videos": f"{OUT}/packed/videos",
        "split_by": "subject",
        "val_fraction": 0.3,
        "storage_path": f"{OUT}/runs",
        "num_workers": 2,
        "min_workers": 1,
        "checkpoint_interval_s": 0.01,
        "recipe": recipe,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(training))))
    train = ("train", "--config", str(folder / "train.yaml"), "--name")
    # In one process outside of the cluster, without faults.
    done = run_job_as(s3.environment, *train, "undisturbed", "--num-workers", "1")
    assert done.returncode == 0, done.stderr
    cluster.run(*train, "disturbed", disturbed_when=lambda: num_files(f"{OUT}/runs/disturbed/state") > 0)
    undisturbed, disturbed = (load_state(f"{OUT}/runs/{name}") for name in ("undisturbed", "disturbed"))
    assert undisturbed is not None
    assert disturbed is not None
    np.testing.assert_allclose(disturbed.losses.numpy(), undisturbed.losses.numpy(), rtol=1e-3)


def label_under_faults(cluster: Cluster) -> int:
    """Label twice, once with faults: the tables are the same. Return the number of windows."""
    cluster.run("label", SOURCE, f"{OUT}/labels", *LABEL)
    cluster.run("label", SOURCE, f"{OUT}/again", *LABEL, disturbed_when=lambda: num_files(f"{OUT}/again/_chunks") > 0)
    undisturbed, disturbed = tables(f"{OUT}/labels"), tables(f"{OUT}/again")
    for name, table in undisturbed.items():
        pd.testing.assert_frame_equal(table, disturbed[name], check_exact=True)
    assert len(undisturbed["failures"]) == 0
    assert undisturbed["videos"]["covered_s"].sum() == pytest.approx(NUM_VIDEOS * VIDEO_S)
    assert set(undisturbed["windows"]["model"]) == {f"{MODELS}/first"}
    return len(undisturbed["windows"])


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
    assert "is running in" in cluster.run(*retrain, code=1)
    code, text = cluster.end(*first)
    assert code == 0, text
    better = registry.production(MODELS).version
    assert better != "first"
    return better
