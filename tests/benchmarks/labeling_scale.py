"""How many decoding machines one driver keeps busy: stand-ins that take as long as the real ones, and decode nothing.

python -m tests.benchmarks.labeling_scale [--nodes 2 5 10 20 100] [--seconds 60]

A node is a machine of 16 cores that decodes 1080p at the rate of tests/benchmarks/RESULTS.md: 8 core-seconds for a chunk of
120 s, so a chunk every half second. Here it is one process that sleeps so long; where there are more nodes than a small
machine has memory for processes, a process stands for several and sleeps the less. The network is a stub as well. What a
process waits between two chunks is what it costs to be scheduled; the driver's CPU per chunk gives the limit where nothing
else is.
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
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.settings import LabelSettings
from tests.benchmarks.labeling_driver import CHUNK_S, CHUNKS_PER_VIDEO, StubDecoder, StubLabeler, prepare
from tests.benchmarks.timing import console, machine

CORES_PER_NODE = 16
CORE_S_PER_CHUNK = 8.0
CHUNK_TAKES_S = CORE_S_PER_CHUNK / CORES_PER_NODE
MOST_PROCESSES = 20  # of 300 MiB
MOST_CHUNKS_PER_S = 15  # of this machine, all of its processes together
FIRST_CHUNKS = 2  # of a process: it starts


class NodeDecoder(StubDecoder):
    """Takes as long as the machines that it stands for; writes down when it began and ended."""

    takes_s: float

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        began_s = time.time()
        time.sleep(self.takes_s)
        decoded = super().__call__(row)
        with (Path(row["video"]).parents[1] / f"times-{os.getpid()}").open("a") as file:
            file.write(f"{began_s} {time.time()}\n")
        return decoded


def gaps_of(root: Path) -> list[float]:
    """Seconds that each process waited between two of its chunks."""
    gaps: list[float] = []
    for path in root.glob("times-*"):
        spans = [tuple(map(float, line.split())) for line in path.read_text().splitlines()][FIRST_CHUNKS:]
        gaps += [after[0] - before[1] for before, after in pairwise(spans)]
    return gaps


def measure(root: Path, num_nodes: int, seconds: float) -> tuple[str, ...]:
    wanted = num_nodes / CHUNK_TAKES_S
    num_videos = max(1, round(min(wanted, MOST_CHUNKS_PER_S) * seconds / CHUNKS_PER_VIDEO))
    prepare(root, num_videos, CHUNK_S * CHUNKS_PER_VIDEO)
    seen: list[tuple[float, int]] = []

    def see(progress: Progress) -> None:
        if progress.stage == "label" and progress.done:
            seen.append((time.perf_counter(), progress.done))

    places = {"archive": str(root / "archive"), "out": str(root / "out"), "model": str(root / "model")}
    how = {"window_s": 30, "stride_s": 30, "precision": "fp32", "compile": "no", "max_labelers": 1}
    # A decode task takes 0.7 of a CPU, the labeler beside them at most a quarter of them.
    num_processes = min(num_nodes, MOST_PROCESSES)
    NodeDecoder.takes_s = CHUNK_TAKES_S * num_processes / num_nodes  # travels with the class to the processes
    num_cpus = round(num_processes * pipeline.DECODE_CPUS["cpu"] / 0.75) + 1
    ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        cpu_s = time.process_time()
        run_labeling(LabelSettings.model_validate(places | how), on_progress=see)
        cpu_s = time.process_time() - cpu_s
    finally:
        ray.shutdown()
    # The second half: all processes run.
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
    parser.add_argument("--seconds", type=float, default=60, help="of work for each row")
    arguments = parser.parse_args()
    pipeline.Decoder, pipeline.Labeler = NodeDecoder, StubLabeler  # type: ignore[attr-defined]
    table = Table(
        *("nodes", "processes", "chunks/s they could do", "done", "one waits: median, 95%", "driver's CPU per chunk"),
        *("of a core", "driver's memory", "nodes that would fill a core"),
        title=f"Stand-ins for machines of {CORES_PER_NODE} cores · {machine()}",
    )
    with tempfile.TemporaryDirectory() as folder:
        for num_nodes in arguments.nodes:
            row = measure(Path(folder) / str(num_nodes), num_nodes, arguments.seconds)
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
    console.print(table)


if __name__ == "__main__":
    main()
