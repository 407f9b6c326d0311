"""What a command counts on, and waiting for nodes: with a cluster that has none until a command requests them."""

import json
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
from tests.distributed.heads import free_ports, running_head, without_ray_variables

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


def test_available_nodes_are_not_waited_for(ray_cluster: None) -> None:
    required = {"model": "m", "clips_list": "l", "videos": "v", "out": "o"}
    settings = EvaluateSettings.model_validate(required | {"cpus": 64, "node_wait_s": 0.1})
    await_nodes(settings.model_copy(update={"cpus": None}))
    assert cluster_resources(settings).num_cpus == 64, "CPUs that the cluster can get count too"
    assert cluster_resources(settings).node_cpus == ray.cluster_resources()["CPU"]
    expected = r"timed out waiting for nodes for 64 processes after 0\.1 s \(node_wait_s\): see `ray status`"
    with pytest.raises(NodesUnavailableError, match=expected):
        await_nodes(settings, 64)


@pytest.mark.parametrize("needs", [{"num_cpus": 0}, {"num_gpus": 64}], ids=["running", "without a node"])
def test_a_task_that_takes_too_long_is_cancelled(ray_cluster: None, needs: dict[str, int]) -> None:
    task = ray.remote(**needs)(lambda: time.sleep(100_000)).remote()
    with pytest.raises(NodesUnavailableError, match=r"asking did not finish within 0\.5 s: see `ray status`"):
        get_or_cancel(task, 0.5, "asking")
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):  # nothing stays that would occupy a node
        ray.get(task)


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a head without CPUs that can get two nodes of 2 CPUs and a GPU, and one of 2 CPUs: Ray's autoscaler,
    with nodes that are processes here."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        folder = Path(name)
        node_types = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
            "decode": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 1},
        }
        config = {
            "cluster_name": "on-demand",
            "max_workers": 3,
            "idle_timeout_minutes": 10,
            "upscaling_speed": 1.0,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": f"127.0.0.1:{port}",
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": node_types,
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
        options = (
            *("--num-cpus=0", "--include-dashboard=false", "--object-store-memory=134217728"),
            f"--autoscaling-config={folder}/cluster.json",
        )
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
        with running_head(folder, port, without_ray_variables() | fake, *options):
            yield f"127.0.0.1:{port}"


def python(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = without_ray_variables() | {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_labeling_requests_the_nodes_that_it_may_count_on(
    address: str, archive: Path, model: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    command = ("-m", "jobs.label", str(archive), out, "--model", model, "--precision", "fp32", "--people", "off")
    too_short = python(address, *command, "--gpus", "1", "--node-wait-s", "0.5")
    assert too_short.returncode == 1, too_short.stderr
    expected = "timed out waiting for nodes for 2 processes, 1 of them with a GPU after 0.5 s (node_wait_s)"
    assert expected in " ".join(too_short.stderr.split())
    assert "Traceback" not in too_short.stderr

    labeled = python(address, *command, "--gpus", "2", "--cpus", "6")
    assert labeled.returncode == 0, labeled.stderr
    assert pq.read_table(tmp_path / "out/windows").num_rows > 0
    show = (
        "import ray; ray.init(logging_level='error', log_to_driver=False); print(ray.cluster_resources().get('GPU', 0))"
    )
    assert float(python(address, "-c", show).stdout) >= 1
