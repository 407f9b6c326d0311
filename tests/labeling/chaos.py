"""Labeling while its processes are killed; the command is started again until it succeeds."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as pads

from microaction.labeling.ledger import CHUNKS
from microaction.schema import PUBLIC_TABLES
from microaction.synthetic.faults import write_truncated
from tests.labeling.decoders import decode_log
from tests.videos import write_video

CHUNKS_PER_VIDEO = 6
PROCESSES = {"decoder": "ChaosDecoder", "labeler": "Labeler"}  # victim → what the titles of its processes contain
HANG_LIMIT_S = 3000  # a run takes a minute
POLL_S = 0.02
LAST_KILL = 0.8  # as a fraction of the chunks: the rest keeps the run busy while the last kill falls


def write_archive(archive: Path, *, num_good: int) -> Path:
    """Write good videos of 6 s, three files that are not videos, and two videos that kill their decoder."""
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
    """Return the command; what it finds with random weights are events too."""
    settings = [
        "--model",
        model,
        "--chunk-s",
        "1",
        "--precision",
        "fp32",
        "--start-threshold",
        "0.02",
        "--min-score",
        "0.02",
        "--people",
        "off",
    ]
    return [sys.executable, "-m", "tests.labeling.chaos_label", str(archive), str(out), *settings]


@dataclass
class Chaos:
    """Starts the command with `start`; `find(word)` returns the IDs of the cluster's worker processes; `disruptions` are
    further ways to disturb, by name.

    Victims, and when they are killed, depend on `seed` alone: alternately when a fraction of the chunks has been decoded, and
    some seconds after the previous kill, which also hits starts and ends.
    """

    archive: Path
    out: Path
    start: Callable[[], subprocess.Popen[bytes]]
    find: Callable[[str], list[int]]
    num_chunks: int
    disruptions: dict[str, Callable[[], None]] = field(default_factory=dict)
    seed: int = 0
    max_pause_s: float = 8.0
    killed: Counter[str] = field(default_factory=Counter)
    in_flight: set[tuple[str, int]] = field(default_factory=set)  # (chunk ID, n): its n-th decoding

    def run(self, num_kills: int, log: Callable[[], str]) -> None:
        """Kill until all kills have fallen, then wait; assert that the command succeeds, and not before."""
        choice = random.Random(self.seed)
        kinds = ["driver", *PROCESSES, *self.disruptions]
        victims = [kinds[number % len(kinds)] for number in range(num_kills)]
        choice.shuffle(victims)
        moments = sorted(choice.uniform(0, LAST_KILL * self.num_chunks) for _ in victims)
        driver = self.start()
        try:
            for number, (victim, moment) in enumerate(zip(victims, moments, strict=True)):
                if number % 2:
                    self._pause(choice.uniform(0, self.max_pause_s))
                else:
                    self._wait_until_decoded(moment, driver, log)
                assert driver.poll() is None, f"the command ended after {dict(self.killed)}: {log()}"
                committed = self._committed()
                if victim == "driver":
                    driver.kill()
                    driver.wait()
                    orphans = set(self.find(PROCESSES["decoder"]))
                    driver = self.start()
                    while orphans & set(self.find(PROCESSES["decoder"])):  # what they still decode is lost too
                        time.sleep(POLL_S)
                    self._record(victim, committed)
                elif victim in self.disruptions:
                    self._record(victim, committed)
                    self.disruptions[victim]()
                else:
                    while not self._kill_one(PROCESSES[victim], choice):
                        assert driver.poll() is None, f"the command ended after {dict(self.killed)}: {log()}"
                        time.sleep(POLL_S)
                        committed = self._committed()
                    self._record(victim, committed)
            assert driver.wait(HANG_LIMIT_S) == 0, log()
        finally:
            driver.kill()
            driver.wait()

    def _pause(self, pause_s: float) -> None:
        """Sleep, but not so long that a fast node could finish the run meanwhile."""
        deadline_s = time.monotonic() + pause_s
        while time.monotonic() < deadline_s and self._num_decoded() < LAST_KILL * self.num_chunks:
            time.sleep(POLL_S)

    def _wait_until_decoded(self, num_chunks: float, driver: "subprocess.Popen[bytes]", log: Callable[[], str]) -> None:
        while self._num_decoded() < num_chunks:
            assert driver.poll() is None, f"the command ended after {dict(self.killed)}: {log()}"
            time.sleep(POLL_S)

    def _kill_one(self, title: str, choice: random.Random) -> bool:
        """Kill one of the processes whose title contains a word; return False if there was none to kill."""
        pids = self.find(title)
        if pids:
            with suppress(ProcessLookupError):  # it ended by itself in between
                os.kill(choice.choice(pids), signal.SIGKILL)
                return True
        return False

    def _record(self, victim: str, committed: set[str]) -> None:
        """Count a kill. What was decoded until then and not committed before may have to be decoded again, once for it."""
        self.killed[victim] += 1
        times = Counter(self._decoded())
        self.in_flight |= {(chunk_id, count) for chunk_id, count in times.items() if chunk_id not in committed}

    def _committed(self) -> set[str]:
        return set(CHUNKS.read_index(str(self.out))["chunk_id"].to_pylist())

    def _decoded(self) -> list[str]:
        """Return a chunk's ID for every time that it was decoded."""
        log = decode_log(self.archive)
        return log.read_text().split() if log.exists() else []

    def _num_decoded(self) -> int:
        return len(set(self._decoded()))

    def assert_little_was_decoded_twice(self) -> None:
        decoded = self._decoded()
        num_chunks, num_twice = len(set(decoded)), len(decoded) - len(set(decoded))
        print(f"{dict(self.killed)}: {num_chunks} chunks, {num_twice} decoded again, {len(self.in_flight)} in flight")
        assert num_twice <= 0.05 * num_chunks + len(self.in_flight)


def rows_of(out: Path, table: str) -> list[dict[str, Any]]:
    """Return a public table's rows, sorted by video, time and action."""
    rows = pads.dataset(out / table).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["video"], row.get("start_s", 0), row.get("action_id", 0)))


def assert_equal_row_for_row(a: Path, b: Path, *, empty: str = "activity") -> None:
    """Assert that the tables of two runs are equal; `empty` is the one that the kind of network does not fill."""
    for table in PUBLIC_TABLES:
        left, right = rows_of(a, table), rows_of(b, table)
        assert bool(left) == (table != empty), f"{table} is empty, which would prove nothing, or is not as it should be"
        assert len(left) == len(right), table
        for one, other in zip(left, right, strict=True):
            assert one == other, table


def assert_everything_is_accounted_for(out: Path) -> None:
    """Seconds of video are the seconds covered by windows plus those in failures/, and no window occurs twice."""
    videos, failures = pd.read_parquet(out / "videos"), pd.read_parquet(out / "failures")
    windows = pd.read_parquet(out / "windows", columns=["video", "start_s"])
    assert not windows.duplicated().any()
    readable = videos[videos["duration_s"].notna()]
    np.testing.assert_allclose(readable["covered_s"] + readable["failed_s"], readable["duration_s"], atol=1e-6)
    assert set(videos["video"]) - set(readable["video"]) <= set(failures["video"])
