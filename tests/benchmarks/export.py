"""Time, peak memory and size of every export of 1,000 hours of labels with 2 million events, and of a tenth of that.

`python -m tests.benchmarks.export [FOLDER]` writes synthetic labels of videos of an hour with two people, and exports them in a
process for each format. What it writes takes about 4 GiB, in FOLDER if one is given, and is deleted otherwise.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from microaction.export.exporters import EXPORTERS
from microaction.export.labels import Event
from microaction.export.run import run_export
from microaction.export.settings import ExportSettings
from microaction.taxonomy import ACTIONS
from tests.benchmarks.timing import console, core_seconds, cpu_name
from tests.export.outputs import Video, write_output

HOURS = (100, 1000)
EVENTS_PER_HOUR, HOUR_S = 2000, 3600.0
PEOPLE = {1: "interviewer", 2: "guest"}
VIDEOS_PER_PART = 50
MIB = 1 << 20
SEED = 1


def interviews(num_hours: int) -> Iterator[Video]:
    """Yield labeled videos of an hour, a session of a subject each."""
    rng = np.random.default_rng(SEED)
    # In turns, so that no two events of a person and an action overlap.
    turns = [(person, action_id) for person in PEOPLE for action_id in range(len(ACTIONS))]
    persons, action_ids = np.resize(turns, (EVENTS_PER_HOUR, 2)).T.tolist()
    for number in range(num_hours):
        starts_s = np.sort(rng.uniform(0, HOUR_S - 10, EVENTS_PER_HOUR)).round(6)
        ends_s = (starts_s + rng.uniform(0.3, 8, EVENTS_PER_HOUR)).round(6)
        scores = rng.uniform(0.3, 1, EVENTS_PER_HOUR).astype(np.float32)
        events = [
            Event(*row)
            for row in zip(
                persons,
                action_ids,
                *(values.tolist() for values in (starts_s, ends_s, scores, scores)),
                strict=True,
            )
        ]
        yield Video(f"subject-{number // 10:03d}/session_{number % 10}.mp4", events, duration_s=HOUR_S, names=PEOPLE)


def export(out: Path, dest: Path, name: str) -> tuple[float, float, int]:
    """Return the core-seconds of an export, its peak memory in MiB, and how many events it has written, of a process of its
    own."""
    command = [sys.executable, "-m", "tests.benchmarks.export", json.dumps([str(out), str(dest), name])]
    core_s, peak_mib, num_events = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return core_s, peak_mib, num_events


def _export(out: str, dest: str, name: str) -> None:
    settings = ExportSettings(out=out, dest=dest, format=name)
    num_events = 0

    def run() -> None:
        nonlocal num_events
        num_events = run_export(settings).written.num_events

    core_s = core_seconds(run)
    # Of this process alone: getrusage's maximum begins with that of the process that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps([core_s, int(status["VmHWM"].split()[0]) / 1024, num_events]))


def _size_mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB


def benchmark(folder: Path) -> None:
    """Print the table."""
    columns = ["format", *(f"{what}, {hours:,} h" for what in ("core-seconds", "peak MiB") for hours in HOURS)]
    table = Table(*columns, f"MiB written, {HOURS[-1]:,} h", title=f"exports of labels ({cpu_name()})")
    outs = {
        hours: write_output(folder / f"labels-{hours}", "/archive", interviews(hours), VIDEOS_PER_PART)
        for hours in HOURS
    }
    for name in EXPORTERS:
        results = []
        for hours, out in outs.items():
            dest = folder / f"{name}-{hours}"
            core_s, peak_mib, num_events = export(out, dest, name)
            assert num_events == hours * EVENTS_PER_HOUR
            results.append((core_s, peak_mib))
        cells = [f"{result[which]:.0f}" for which in (0, 1) for result in results]
        table.add_row(name, *cells, f"{_size_mib(folder / f'{name}-{HOURS[-1]}'):.0f}")
    console.print(table)


def main() -> None:
    """Run the benchmark in the folder that is given, or in a temporary one."""
    if len(sys.argv) > 1:
        benchmark(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        benchmark(Path(folder))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("["):
        _export(*json.loads(sys.argv[1]))
    else:
        main()
