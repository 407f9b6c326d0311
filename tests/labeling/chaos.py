"""Labelling while somebody kills its processes, and starts the command again until it says done."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as pads

from microaction.labeling.ledger import read_index
from microaction.schema import PUBLIC_TABLES
from microaction.synthetic.faults import write_truncated
from tests.labeling.decoders import notes_of
from tests.videos import write_video

CHUNKS_PER_VIDEO = 6
PROCESSES = {"decoder": "ChaosDecoder", "labeler": "Labeler"}  # what the titles of their processes hold
PATIENCE_S = 300


def write_archive(archive: Path, *, num_good: int) -> Path:
    """Good videos of 6 s, three that are none, two that kill whoever decodes them."""
    archive.mkdir(parents=True)
    write_video(archive / "good-000.mp4", num_frames=180)
    for number in range(1, num_good):
        shutil.copy(archive / "good-000.mp4", archive / f"good-{number:03d}.mp4")
    write_truncated(archive / "cut.mp4", archive / "good-000.mp4")
    (archive / "text.mp4").write_text("not a video")
    (archive / "empty.mp4").touch()
    for name in ("poison-a.mp4", "poison-b.mp4"):
        write_video(archive / name, num_frames=30)
    return archive


def command(archive: Path, out: Path, model: str) -> list[str]:
    settings = ["--model", model, "--chunk-s", "1", "--precision", "fp32", "--start-threshold", "0.02"]
    return [sys.executable, "-m", "tests.labeling.chaos_label", str(archive), str(out), *settings]


@dataclass
class Chaos:
    """Starts the command with `start`; `find(word)` gives process IDs of the cluster's workers; `strikes` are further ways to
    disturb, by name.

    Victims, and when they are struck, hang on `seed` alone: in turns when a share of the chunks has been decoded, and some
    seconds after the one before, which hits starts and ends too.
    """

    archive: Path
    out: Path
    start: Callable[[], subprocess.Popen[bytes]]
    find: Callable[[str], list[int]]
    num_chunks: int
    strikes: dict[str, Callable[[], None]] = field(default_factory=dict)
    seed: int = 0
    longest_pause_s: float = 8.0
    killed: Counter[str] = field(default_factory=Counter)
    in_flight: set[tuple[str, int]] = field(default_factory=set)  # (chunk ID, n): its n-th decoding

    def run(self, num_kills: int, log: Callable[[], str]) -> None:
        """Until the command has ended well; asserts that it does, and that as many kills fell before."""
        choice = random.Random(self.seed)
        kinds = ["driver", *PROCESSES, *self.strikes]
        victims = [kinds[number % len(kinds)] for number in range(num_kills)]
        choice.shuffle(victims)
        moments = sorted(choice.uniform(0, 0.8 * self.num_chunks) for _ in victims)
        driver = self.start()
        try:
            for number, (victim, moment) in enumerate(zip(victims, moments, strict=True)):
                if number % 2:
                    time.sleep(choice.uniform(0, self.longest_pause_s))
                while len(set(self._decoded())) < moment and number % 2 == 0:
                    assert driver.poll() is None, f"it ended after {dict(self.killed)}: {log()}"
                    time.sleep(0.02)
                deadline_s = time.monotonic() + PATIENCE_S
                while victim in PROCESSES and not self.find(PROCESSES[victim]) and time.monotonic() < deadline_s:
                    assert driver.poll() is None, f"it ended after {dict(self.killed)}: {log()}"
                    time.sleep(0.02)
                assert driver.poll() is None, f"it ended after {dict(self.killed)}: {log()}"
                self._count(victim)
                if victim == "driver":
                    driver.kill()
                    driver.wait()
                    driver = self.start()
                elif victim in self.strikes:
                    self.strikes[victim]()
                else:
                    os.kill(choice.choice(self.find(PROCESSES[victim])), signal.SIGKILL)
            assert driver.wait(PATIENCE_S) == 0, log()
        finally:
            driver.kill()
            driver.wait()

    def _count(self, victim: str) -> None:
        """Whatever is decoded and not committed when something is killed may have to be decoded again, once for that."""
        self.killed[victim] += 1
        times = Counter(self._decoded())
        for chunk_id in read_index(str(self.out))["chunk_id"].to_pylist():
            del times[chunk_id]
        self.in_flight |= set(times.items())

    def _decoded(self) -> list[str]:
        """A chunk's ID for every time that it was decoded."""
        notes = notes_of(self.archive)
        return notes.read_text().split() if notes.exists() else []

    def assert_little_was_done_twice(self) -> None:
        notes = self._decoded()
        num_chunks, num_twice = len(set(notes)), len(notes) - len(set(notes))
        print(f"{dict(self.killed)}: {num_chunks} chunks, {num_twice} decoded again, {len(self.in_flight)} in flight")
        assert num_twice <= 0.05 * num_chunks + len(self.in_flight)


def rows_of(out: Path, table: str) -> list[dict[str, Any]]:
    """A published table's rows in an order of their own."""
    rows = pads.dataset(out / table).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["video"], row.get("start_s", 0), row.get("action_id", 0)))


def assert_equal_row_for_row(a: Path, b: Path) -> None:
    for table in PUBLIC_TABLES:
        left, right = rows_of(a, table), rows_of(b, table)
        assert left, f"{table} is empty, which would prove nothing"
        assert len(left) == len(right), table
        for one, other in zip(left, right, strict=True):
            assert one == other, table


def assert_everything_is_accounted_for(out: Path) -> None:
    """Seconds of video in = seconds covered by windows + seconds in failures/, and no window twice."""
    videos, failures = pd.read_parquet(out / "videos"), pd.read_parquet(out / "failures")
    windows = pd.read_parquet(out / "windows", columns=["video", "start_s"])
    assert not windows.duplicated().any()
    readable = videos[videos["duration_s"].notna()]
    np.testing.assert_allclose(readable["covered_s"] + readable["failed_s"], readable["duration_s"], atol=1e-6)
    assert set(videos["video"]) - set(readable["video"]) <= set(failures["video"])
