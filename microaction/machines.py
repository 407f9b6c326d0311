"""Machines that come when they are asked for: what a job may count on where a cluster grows and shrinks."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group

from microaction.config import ClusterSettings
from microaction.errors import InterruptedRunError

logger = logging.getLogger(__name__)


class MachinesError(InterruptedRunError, RuntimeError):
    """The machines that a job needs did not come."""


@dataclass(frozen=True)
class Machines:
    """What a job counts on: the cluster as it is, or as it was said to become. `node_cpus` is the largest machine's."""

    num_cpus: int
    num_gpus: int
    node_cpus: int


def machines(settings: ClusterSettings) -> Machines:
    """What the cluster has, and at least what the settings say that it will have."""
    here = ray.cluster_resources()
    node_cpus = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return Machines(
        max(1, int(here.get("CPU", 0)), settings.cpus or 0),
        max(int(here.get("GPU", 0)), settings.gpus or 0),
        max(1, node_cpus),
    )


def await_machines(settings: ClusterSettings, num_processes: int = 1) -> None:
    """Waits until the cluster has a CPU, and a GPU if the settings count on any, for each of some processes.

    Where they are there, as on a machine that stands alone, it returns at once. Else it asks Ray's autoscaler by a placement
    group, a demand that ends with the driver, however that ends. Raises `MachinesError` after `settings.machines_wait_s`.
    """
    num_gpus = min(num_processes, settings.gpus or 0)
    here = ray.cluster_resources()
    if here.get("CPU", 0) >= (num_processes if settings.cpus else 1) and here.get("GPU", 0) >= num_gpus:
        return
    cpu, gpu = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}
    # Where GPUs are counted on, decoding needs a CPU beside them.
    bundles = [gpu] * num_gpus + [cpu] if num_gpus else [cpu] * num_processes
    logger.warning("waiting for machines, %g s at most; see `ray status`", settings.machines_wait_s)
    group = placement_group(bundles, strategy="PACK")
    try:
        started_s = time.monotonic()
        while not group.wait(1):
            if time.monotonic() - started_s > settings.machines_wait_s:
                gpus = f" and {num_gpus} with a GPU" if num_gpus else ""
                raise MachinesError(
                    f"the cluster has not got machines for {len(bundles)} processes{gpus} in {settings.machines_wait_s:g} s "
                    "(machines_wait_s); see `ray status` for what it waits for"
                )
    finally:
        remove_placement_group(group)


def result_of(task: ray.ObjectRef, within_s: float, what: str, *, setting: str = "") -> Any:
    """What a task returns; raises what it raises, and `MachinesError` where that takes too long: its machine may be cut off,
    or none may come. `what` completes "… has not ended"; `setting` is the name of the one that `within_s` is, if any."""
    if not ray.wait([task], timeout=within_s)[0]:
        ray.cancel(task, force=True)
        raise MachinesError(
            f"{what} has not ended within {within_s:g} s{setting and f' ({setting})'}: see `ray status` for machines that "
            "are missing or cut off, and run the same command again"
        )
    return ray.get(task)
