"""Everything in a row on real parts: a bucket, three machines, jobs that are submitted, and trouble in between."""

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
from tests.conftest import Ended
from tests.nodes import Nodes, require_namespaces
from tests.proxy import counting_proxy
from tests.retraining.test_run import RECIPE, TINY, mislabelled, write_clips
from tests.storage.test_s3 import run_job_as

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[1]
HEAD, KILLED, CUT = 0, 1, 2
JOB_S = 600
NUM_VIDEOS, VIDEO_S = 6, 480
CUT_S = 15  # longer than it takes to be taken for dead
SOURCE, OUT = "s3://interviews/archive", "s3://results/all"
MODELS = f"{OUT}/models"


class Cluster:
    """Three nodes, the first of which has what counts as a GPU, and the jobs on them."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self._folder, self._num_jobs = nodes, folder, 0

    def start(self, name: str, *arguments: str) -> tuple["subprocess.Popen[bytes]", str]:
        self._num_jobs += 1
        log = f"{self._num_jobs}-{name}"
        return self.nodes.submit(log, ROOT, "python", "-m", f"jobs.{name}", *arguments), log

    def run(self, name: str, *arguments: str, disturbed_when: Callable[[], bool] | None = None, code: int = 0) -> str:
        """Submits a job and waits for its end; returns what it said. If asked to, a node dies meanwhile, and a link."""
        started_s = time.monotonic()
        job, log = self.start(name, *arguments)
        if disturbed_when is not None:
            self.wait(disturbed_when, job, log)
            self.nodes.kill(KILLED)
            self.nodes.disconnect(CUT)
            time.sleep(CUT_S)
            self.nodes.reconnect(CUT)
            assert job.poll() is None, f"it was to be at work: {self.nodes.log(log)}"
        ended, said = self.end(job, log)
        print(f"{log}: {time.monotonic() - started_s:.0f} s")
        assert ended == code, said
        return said

    def end(self, job: "subprocess.Popen[bytes]", log: str) -> tuple[int, str]:
        """Waits for a job's end; returns its exit code and what it said."""
        failed = job.wait(JOB_S) != 0
        said = self.nodes.log(log)
        code = re.search(r"exit code (\d+)", said)
        assert failed == (code is not None), said
        return int(code[1]) if code else 0, said

    def replace_lost(self) -> None:
        for number in (KILLED, CUT):
            self.nodes.replace(number)

    def wait(self, is_so: Callable[[], bool], job: "subprocess.Popen[bytes]", log: str) -> None:
        deadline_s = time.monotonic() + JOB_S
        while not is_so():
            assert job.poll() is None, f"it ended by itself: {self.nodes.log(log)}"
            assert time.monotonic() < deadline_s, f"waited {JOB_S} s: {self.nodes.log(log)}"
            time.sleep(0.1)


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
    """The published tables of a run, in an order of their own."""
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


def test_from_a_bucket_of_videos_to_a_model_that_is_never_worse(
    cluster: Cluster, s3: S3Server, tmp_path: Path, job: Callable[..., Ended]
) -> None:
    (tmp_path / "archive").mkdir()
    for number in range(NUM_VIDEOS):
        write_long_video(tmp_path / f"archive/{number}.mp4", duration_s=VIDEO_S, size=(160, 120), loop_s=20)
    lines = write_clips(tmp_path / "clips", "abcdef", takes=3)
    (tmp_path / "clips/list.txt").write_text("".join(lines))
    upload(tmp_path / "archive", SOURCE)
    upload(tmp_path / "clips", "s3://interviews/clips")

    cluster.run("catalog", SOURCE, f"{OUT}/catalog.parquet")
    clips = ("--clips-list", "s3://interviews/clips/list.txt", "--videos", "s3://interviews/clips/videos")
    cluster.run("pack", *clips, "--out", f"{OUT}/packed", "--short-side", "40")

    # Small steps: large ones make a difference in the last digit another run.
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
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(training))))
    train = ("train", "--config", str(tmp_path / "train.yaml"), "--name")
    # By one process on this machine alone, to which nothing happens.
    done = run_job_as(s3.environment, *train, "quiet", "--num-workers", "1")
    assert done.returncode == 0, done.stderr
    cluster.run(*train, "disturbed", disturbed_when=lambda: num_files(f"{OUT}/runs/disturbed/state") > 0)
    quiet, disturbed = (load_state(f"{OUT}/runs/{name}") for name in ("quiet", "disturbed"))
    assert quiet is not None
    assert disturbed is not None
    np.testing.assert_allclose(disturbed.losses.numpy(), quiet.losses.numpy(), rtol=1e-3)
    cluster.replace_lost()

    for command in (("add", MODELS, f"{OUT}/runs/disturbed/best", "--name", "first"), ("promote", MODELS, "first")):
        assert job("registry", *command).returncode == 0
    label = ("label", SOURCE)
    flags = ("--model", f"{MODELS}@production", "--catalog", f"{OUT}/catalog.parquet", "--precision", "fp32")
    cluster.run(*label, f"{OUT}/labels", *flags)
    cluster.run(*label, f"{OUT}/again", *flags, disturbed_when=lambda: num_files(f"{OUT}/again/_chunks") > 0)
    quiet_tables, disturbed_tables = tables(f"{OUT}/labels"), tables(f"{OUT}/again")
    for name, table in quiet_tables.items():
        pd.testing.assert_frame_equal(table, disturbed_tables[name], check_exact=True)
    assert len(quiet_tables["failures"]) == 0
    assert quiet_tables["videos"]["covered_s"].sum() == pytest.approx(NUM_VIDEOS * VIDEO_S)
    assert set(quiet_tables["windows"]["model"]) == {f"{MODELS}/first"}

    cluster.replace_lost()
    learned = set(registry.read_version(MODELS, "first").data["train"].subjects)
    wrong = mislabelled([line for line in lines if line[0] in learned])
    storage.write_bytes("s3://interviews/labels/1.txt", "".join(wrong).encode())
    gates = {
        "f1_mean_margin": -0.1,
        "class_f1_margin": 0.3,
        "min_support": 2,
        "calibration_margin": 0.3,
        "min_held_out": 8,
    }
    # On more processes than there are "GPUs", which nobody can train on here.
    retraining = {"min_new": 8, "val_fraction": 0.2, "recipe": RECIPE, "gates": gates, "num_workers": 2}
    (tmp_path / "retrain.yaml").write_text(yaml.safe_dump(retraining))
    places = ("--dataset", f"{OUT}/packed", "--labels", "s3://interviews/labels", "--work", f"{OUT}/retraining")
    retrain = ("retrain", MODELS, *places, "--config", str(tmp_path / "retrain.yaml"))
    first = cluster.start(*retrain)
    cluster.wait(lambda: num_files(f"{MODELS}/_retrain") > 0, *first)
    assert "is running in" in cluster.run(*retrain, code=2)
    code, refused = cluster.end(*first)
    assert code == 3, refused
    assert "F1 mean" in refused
    assert registry.production(MODELS).version == "first"
    new = write_clips(tmp_path / "labels", "ghijkl")
    (tmp_path / "labels/2.txt").write_text("".join([*lines, *new]))
    upload(tmp_path / "labels", "s3://interviews/labels")
    cluster.run(*retrain)
    better = registry.production(MODELS).version
    assert better != "first"
    uncertain = ("--relabel", "uncertain", "--base-run", f"{OUT}/labels", "--relabel-below", "0.3")
    cluster.run(*label, f"{OUT}/newer", *flags, *uncertain)
    newer = tables(f"{OUT}/newer")
    assert len(newer["windows"]) == len(quiet_tables["windows"])
    assert {f"{MODELS}/{better}"} <= set(newer["windows"]["model"]) <= {f"{MODELS}/{better}", f"{MODELS}/first"}
    assert job("registry", "rollback", MODELS, "--reason", "on second thoughts").returncode == 0
    assert registry.production(MODELS).version == "first"
