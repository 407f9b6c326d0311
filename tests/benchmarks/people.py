"""Who is who in drawn interviews of two people, and what looking for people costs.

`python -m tests.benchmarks.people [FOLDER] [NUMBER]` draws NUMBER (25) interviews of each of eight kinds into FOLDER (`people`),
by turns of 640×360, 1280×720 and 1920×1080, follows the people in them, and prints how many numbers are of two people, and how
many people have two numbers; and in as many rooms without anybody how many people are found. Before that it looks at a minute
of 1080p and prints core-seconds per hour, beside those of decoding.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table

from microaction.people import MoveNet, find_people, take_looks
from microaction.synthetic.scene import Shot, make_scene, side_by_side
from microaction.video import Framing, decode_chunk, probe
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.benchmarks.timing import console, cpu_name
from tests.people.scenes import FPS, KINDS, compare, draw_scene, looks_at

MINUTE = Span(0, 60 * MICROSECONDS)
ROUNDS = 5
SIZES = ((640, 360), (1280, 720), (1920, 1080))


def count(folder: Path, number: int) -> Table:
    """Follow the people of `number` interviews of each kind."""
    table = Table("", "interviews", "mixtures", "splits", "missed", "", title="Two drawn people in interviews")
    totals = np.zeros(4, int)
    for kind in KINDS:
        counts = np.zeros(4, int)
        for seed in range(number):
            path = folder / f"{kind.replace(' ', '-')}-{seed}.mp4"
            size = SIZES[seed % len(SIZES)]
            found = compare(path, draw_scene(path, kind, seed, size), size)
            counts += [1, found.num_mixtures, found.num_splits, found.num_missed]
        table.add_row(kind, *map(str, counts))
        totals += counts
    table.add_row("all", *map(str, totals))
    num_found = 0
    for seed in range(number):
        path = folder / f"nobody-{seed}.mp4"
        make_scene(path, subject_seeds=[seed], shots=[Shot(20, {})], seed=seed, size=SIZES[seed % len(SIZES)], fps=FPS)
        looks, duration_us = looks_at(path)
        num_found += len(find_people(looks, duration_us).people)
    table.add_row("nobody", str(number), "", "", "", f"{num_found} found")
    return table


def core_seconds(work: Callable[[], object]) -> float:
    """Return the median of a few rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started_s = time.process_time()
        work()
        rounds.append(time.process_time() - started_s)
    return float(np.median(rounds))


def cost(folder: Path) -> Table:
    """Measure looks, following and decoding on a minute of drawn 1080p, by one thread, as the tasks of a cluster have."""
    cv2.setNumThreads(1)
    path = folder / "minute-1080p.mp4"
    if not path.exists():
        make_scene(path, subject_seeds=(3, 11), shots=[Shot(60, side_by_side(0, 1))], seed=1, size=(1920, 1080), fps=25)
    video, detector = str(path), MoveNet()
    looks = list(take_looks(video, MINUTE, detector))
    windows = split_windows(MINUTE.end_us, 2 * MICROSECONDS, MICROSECONDS, MINUTE)
    steps: dict[str, Callable[[], object]] = {
        "looks": lambda: list(take_looks(video, MINUTE, detector)),
        "people, of the looks": lambda: find_people(looks, MINUTE.end_us),
        "decoding, 8 frames a window": lambda: decode_chunk(video, MINUTE, windows, framing=Framing()),
    }
    gop_s = float(np.median(np.diff([look.time_us for look in looks]))) / MICROSECONDS
    size = f"{probe(video).width}×{probe(video).height}"
    table = Table("", "core-seconds an hour", title=f"Cost of {size}, a look every {gop_s:g} s")
    for name, work in steps.items():
        table.add_row(name, f"{60 * core_seconds(work):.0f}")
    return table


def main() -> None:
    """Print both tables."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "people")
    folder.mkdir(parents=True, exist_ok=True)
    console.print(cpu_name())
    console.print(cost(folder))
    console.print(count(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 25))


if __name__ == "__main__":
    main()
