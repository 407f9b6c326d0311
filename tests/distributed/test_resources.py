"""A cluster that has no machine until somebody asks for one: Ray's autoscaler, with nodes that are processes here."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import TaskCancelledError, WorkerCrashedError

from microaction.distributed.resources import await_nodes, cluster_resources
from microaction.distributed.waiting import NodesUnavailableError, get_or_cancel
from microaction.evaluation.settings import EvaluateSettings
from tests.cli.test_submission import RAY, ROOT, free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
START_S = 60


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head without CPUs that can get two nodes of 2 CPUs and a GPU, and one of 2 CPUs."""
    port, client, agent = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        folder = Path(name)
        kinds = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
            "decode": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 1},
        }
        config = {
            "cluster_name": "comes-and-goes",
            "max_workers": 3,
            "idle_timeout_minutes": 10,
            "upscaling_speed": 1.0,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": f"127.0.0.1:{port}",
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": kinds,
            "head_node_type": "ray.head.default",
            # As `ray up` would have filled them in.
            **{name: {} for name in ("auth", "docker", "file_mounts")},
            **{
                name: []
                for name in ("cluster_synced_files", "initialization_commands", "rsync_exclude", "rsync_filter")
            },
            **{f"{kind}_setup_commands": [] for kind in ("head", "worker")},
            **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
            "setup_commands": [],
            "file_mounts_sync_continuously": False,
        }
        (folder / "cluster.json").write_text(json.dumps(config))
        start = [
            *(RAY, "start", "--head", "--block", "--num-cpus=0", "--node-ip-address=127.0.0.1", f"--port={port}"),
            *(f"--ray-client-server-port={client}", "--dashboard-agent-listen-port", str(agent)),
            *("--include-dashboard=false", f"--temp-dir={folder}/ray", "--object-store-memory=134217728"),
            *(f"--autoscaling-config={folder}/cluster.json", "--disable-usage-stats"),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
        with (folder / "head.log").open("w") as log:
            head = subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline_s = time.monotonic() + START_S
            while "Ray runtime started" not in (folder / "head.log").read_text():
                assert head.poll() is None, (folder / "head.log").read_text()
                assert time.monotonic() < deadline_s, (folder / "head.log").read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            subprocess.run(["pkill", "-9", "-f", f"{folder}/ray"], check=False)


def python(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_labelling_asks_for_the_machines_that_it_may_count_on(
    address: str, archive: Path, model: str, tmp_path: Path
) -> None:
    command = ("-m", "jobs.label", str(archive), str(tmp_path / "out"), "--model", model, "--precision", "fp32")
    too_much = python(address, *command, "--gpus", "1", "--node-wait-s", "0.5")
    assert too_much.returncode == 1, too_much.stderr
    assert "has not got machines for 2 processes and 1 with a GPU in 0.5 s" in " ".join(too_much.stderr.split())
    assert "Traceback" not in too_much.stderr

    labelled = python(address, *command, "--gpus", "2", "--cpus", "6")
    assert labelled.returncode == 0, labelled.stderr
    assert pq.read_table(tmp_path / "out/windows").num_rows > 0
    show = (
        "import ray; ray.init(logging_level='error', log_to_driver=False); print(ray.cluster_resources().get('GPU', 0))"
    )
    assert float(python(address, "-c", show).stdout) >= 1


def test_what_is_there_is_not_waited_for(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"model": "m", "clips_list": "l", "videos": "v", "out": "o"}
    settings = EvaluateSettings.model_validate(places | {"cpus": 64, "node_wait_s": 0.1})
    await_nodes(settings.model_copy(update={"cpus": None}))
    assert cluster_resources(settings).num_cpus == 64, "those that are to come are counted on"
    assert cluster_resources(settings).node_cpus == ray.cluster_resources()["CPU"]
    with pytest.raises(NodesUnavailableError, match=r"machines for 64 processes in 0\.1 s"):
        await_nodes(settings, 64)


@pytest.mark.parametrize("needs", [{"num_cpus": 0}, {"num_gpus": 64}], ids=["cut off", "without a machine"])
def test_what_takes_too_long_is_not_waited_for(ray_cluster: None, needs: dict[str, int]) -> None:
    task = ray.remote(**needs)(lambda: time.sleep(600)).remote()
    with pytest.raises(NodesUnavailableError, match=r"asking has not ended within 0\.5 s: see `ray status`"):
        get_or_cancel(task, 0.5, "asking")
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):  # nothing stays that would take a machine's place
        ray.get(task, timeout=30)
