"""How many decoding nodes one driver keeps busy, with stand-ins that take as long as real ones and decode nothing.

python -m tests.benchmarks.labeling_scale [--nodes 2 5 10 20 100] [--seconds 60]

A node has 16 cores and decodes 1080p at the rate in tests/benchmarks/RESULTS.md: 8 core-seconds per chunk of 120 s, so one
chunk every half second. Here it is one process that sleeps for that time; for more nodes than processes fit into the memory
of a small computer, a process stands for several nodes and sleeps for less. The network is a stub too. The time that a process
waits between two chunks is the cost of scheduling; the driver's CPU time per chunk gives the limit if nothing else does.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
from rich.table import Table

from microaction.labeling import pipeline
from microaction.labeling.pool import DECODE_CPUS
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.settings import LabelSettings
from tests.benchmarks.labeling_driver import CHUNK_S, CHUNKS_PER_VIDEO, StubDecoder, StubLabeler, write_inputs
from tests.benchmarks.timing import console, cpu_name

CORES_PER_NODE = 16
CORE_S_PER_CHUNK = 8.0
CHUNK_TAKES_S = CORE_S_PER_CHUNK / CORES_PER_NODE
MAX_PROCESSES = 20  # of 300 MiB
MAX_CHUNKS_PER_S = 15  # of all processes here together
WARMUP_CHUNKS = 2  # of a process that has just started


class NodeDecoder(StubDecoder):
    """Takes as long as the nodes that it stands for, and records when it started and ended."""

    takes_s: float

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        started_s = time.time()
        time.sleep(self.takes_s)
        decoded = super().__call__(row)
        with (Path(row["video"]).parents[1] / f"times-{os.getpid()}").open("a") as file:
            file.write(f"{started_s} {time.time()}\n")
        return decoded


def gaps_of(root: Path) -> list[float]:
    """Return the seconds that each process waited between two of its chunks."""
    gaps: list[float] = []
    for path in root.glob("times-*"):
        spans = [tuple(map(float, line.split())) for line in path.read_text().splitlines()][WARMUP_CHUNKS:]
        gaps += [after[0] - before[1] for before, after in pairwise(spans)]
    return gaps


def measure(root: Path, num_nodes: int, seconds: float) -> tuple[str, ...]:
    wanted = num_nodes / CHUNK_TAKES_S
    num_videos = max(1, round(min(wanted, MAX_CHUNKS_PER_S) * seconds / CHUNKS_PER_VIDEO))
    write_inputs(root, num_videos, CHUNK_S * CHUNKS_PER_VIDEO)
    seen: list[tuple[float, int]] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "label" and progress.done:
            seen.append((time.perf_counter(), progress.done))

    locations = {"archive": str(root / "archive"), "out": str(root / "out"), "model": str(root / "model")}
    settings = {
        "window_s": 30,
        "stride_s": 30,
        "precision": "fp32",
        "compile": "no",
        "people": "off",
        "max_labelers": 1,
    }
    # A decode task takes 0.7 of a CPU, and the labeler at most a quarter of the CPUs.
    num_processes = min(num_nodes, MAX_PROCESSES)
    NodeDecoder.takes_s = CHUNK_TAKES_S * num_processes / num_nodes  # pickled with the class
    num_cpus = round(num_processes * DECODE_CPUS["CPU"] / 0.75) + 1
    ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        cpu_s = time.process_time()
        run_labeling(LabelSettings.model_validate(locations | settings), on_progress=on_progress)
        cpu_s = time.process_time() - cpu_s
    finally:
        ray.shutdown()
    # The second half, when all processes are running.
    (middle_s, before), (end_s, done) = seen[len(seen) // 2], seen[-1]
    rate, gaps = (done - before) / (end_s - middle_s), sorted(gaps_of(root))
    cpu_per_chunk_s = cpu_s / done
    return (
        str(num_nodes),
        str(num_processes),
        f"{wanted:.0f}",
        f"{rate:.1f}",
        f"{1000 * statistics.median(gaps):.0f} ms, {1000 * gaps[len(gaps) * 95 // 100]:.0f} ms",
        f"{1000 * cpu_per_chunk_s:.0f} ms",
        f"{cpu_per_chunk_s * rate:.0%}",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
        f"{CHUNK_TAKES_S / cpu_per_chunk_s:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 5, 10, 20, 100])
    parser.add_argument("--seconds", type=float, default=60, help="of work per row")
    arguments = parser.parse_args()
    pipeline.Decoder, pipeline.LabelerActor = NodeDecoder, StubLabeler  # type: ignore[attr-defined, misc]
    table = Table(
        *("nodes", "processes", "chunks/s possible", "chunks/s", "wait: median, 95%", "driver's CPU per chunk"),
        *("of a core", "driver's memory", "nodes that would fill a core"),
        title=f"Stand-ins for nodes of {CORES_PER_NODE} cores · {cpu_name()}",
    )
    with tempfile.TemporaryDirectory() as folder:
        for num_nodes in arguments.nodes:
            row = measure(Path(folder) / str(num_nodes), num_nodes, arguments.seconds)
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    console.print(table)


if __name__ == "__main__":
    main()
