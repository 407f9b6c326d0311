"""Compares ways to do the same thing by the medians of their times.

The ways take turns, so that changes in the load of the machine affect all of them.
"""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(width=120)


def core_seconds(way: Callable[[], object]) -> float:
    """Return the processor time of a call, child processes included."""
    before = time.process_time() + _children_s()
    way()
    return time.process_time() + _children_s() - before


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the core-seconds of each way: medians over `rounds` turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(core_seconds(way))
    return {name: statistics.median(values) for name, values in taken.items()}


def print_rates(title: str, unit: str, amount: float, taken_s: dict[str, float], subject: str) -> None:
    """Print a table of rates, and how many times as fast as each way the subject is."""
    table = Table("way", f"{unit} per core-second", f"{subject} is faster by", title=title)
    for name, seconds in taken_s.items():
        table.add_row(name, f"{amount / seconds:.1f}", f"{seconds / taken_s[subject]:.2f}×")
    console.print(table)


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
