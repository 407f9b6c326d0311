"""Nodes and their resources: what a command may count on where a cluster grows and shrinks."""

import logging
import time
from dataclasses import dataclass

import ray
from ray.util import placement_group, remove_placement_group

from microaction.distributed.settings import ClusterSettings
from microaction.distributed.waiting import NodesUnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterResources:
    """What a command counts on: the cluster as it is, or as its settings say that it will be. `node_cpus` is the number of
    CPUs of the largest node."""

    num_cpus: int
    num_gpus: int
    node_cpus: int


def cluster_resources(settings: ClusterSettings) -> ClusterResources:
    """Return what the cluster has, and at least what the settings say that it can have."""
    resources = ray.cluster_resources()
    node_cpus = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return ClusterResources(
        max(1, int(resources.get("CPU", 0)), settings.cpus or 0),
        max(int(resources.get("GPU", 0)), settings.gpus or 0),
        max(1, node_cpus),
    )


def await_nodes(settings: ClusterSettings, num_processes: int = 1) -> None:
    """Wait until the cluster has a CPU, and a GPU if the settings count on any, for each of some processes.

    Returns at once where it has them, as on a single machine. Otherwise requests them from Ray's autoscaler through a placement
    group, a demand that ends with the driver, however that ends. Raises `NodesUnavailableError` after `settings.node_wait_s`.
    """
    num_gpus = min(num_processes, settings.gpus or 0)
    resources = ray.cluster_resources()
    if resources.get("CPU", 0) >= (num_processes if settings.cpus else 1) and resources.get("GPU", 0) >= num_gpus:
        return
    cpu, gpu = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}
    # Where GPUs are counted on, decoding needs a CPU beside them.
    bundles = [gpu] * num_gpus + [cpu] if num_gpus else [cpu] * num_processes
    logger.warning("waiting up to %g s for nodes; see `ray status`", settings.node_wait_s)
    group = placement_group(bundles, strategy="PACK")
    try:
        started_s = time.monotonic()
        while not group.wait(1):
            if time.monotonic() - started_s > settings.node_wait_s:
                gpus = f", {num_gpus} of them with a GPU" if num_gpus else ""
                raise NodesUnavailableError(
                    f"timed out waiting for nodes for {len(bundles)} processes{gpus} after {settings.node_wait_s:g} s "
                    "(node_wait_s): see `ray status` for what the cluster waits for"
                )
    finally:
        remove_placement_group(group)
