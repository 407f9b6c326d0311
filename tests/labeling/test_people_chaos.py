"""Labeling by person while its processes are killed in every stage: looks, people, chunks. Nothing changes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from microaction.labeling.ledger import CHUNKS, LOOKS
from microaction.synthetic.scene import Shot, close_up, make_scene, side_by_side
from tests.labeling.chaos import assert_equal_row_for_row
from tests.labeling.lookers import look_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SIZE, FPS = (640, 360), 4
NUM_PARTS = 8  # two videos of 42 s, in parts of 12 s
POLL_S = 0.02


def descendants(pid: int) -> list[int]:
    """Return the processes below a process."""
    parent_of: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent_of[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    below = {pid}
    while below:
        below = {child for child, parent in parent_of.items() if parent in below}
        found += below
    return found


def titled(pid: int, word: str) -> list[int]:
    """Return the processes below a process whose title has a word."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            if word in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


class Run:
    """The command, started again after each kill."""

    def __init__(self, archive: Path, out: Path, model: str) -> None:
        settings = ["--model", model, "--chunk-s", "6", "--precision", "fp32", "--start-threshold", "0.02"]
        self.command = [sys.executable, "-m", "tests.labeling.chaos_people", str(archive), str(out), *settings]
        self.out = str(out)

    @contextmanager
    def started(self) -> Iterator["subprocess.Popen[bytes]"]:
        driver = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield driver
        finally:
            left = descendants(driver.pid)
            for pid in (driver.pid, *left):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            driver.wait()

    def wait_until(self, is_so: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
        while not is_so():
            assert driver.poll() is None, f"the command ended with {driver.returncode}"
            time.sleep(POLL_S)

    def kill_worker(self, word: str, driver: "subprocess.Popen[bytes]") -> None:
        self.wait_until(lambda: bool(titled(driver.pid, word)), driver)
        for pid in titled(driver.pid, word)[:1]:
            with suppress(ProcessLookupError):  # its work ended in between
                os.kill(pid, signal.SIGKILL)

    def looked(self) -> int:
        return len(set(LOOKS.read_index(self.out)["chunk_id"].to_pylist()))

    def labeled(self) -> int:
        return len(set(CHUNKS.read_index(self.out)["chunk_id"].to_pylist()))

    def finish(self) -> None:
        with self.started() as driver:
            assert driver.wait() == 0


def test_kills_in_every_stage_change_no_crop_and_no_row(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    shots = [Shot(18.0, side_by_side(0, 1)), Shot(27.0, close_up(1)), Shot(42.0, side_by_side(0, 1))]
    for number, name in enumerate(("a.mp4", "b.mp4")):
        subjects = [9100 + 2 * number, 9101 + 2 * number]
        make_scene(archive / name, subject_seeds=subjects, shots=shots, seed=number, size=SIZE, fps=FPS)
    (archive / "text.mp4").write_text("not a video")
    undisturbed, disturbed = Run(archive, tmp_path / "undisturbed", model), Run(archive, tmp_path / "disturbed", model)
    undisturbed.finish()
    assert undisturbed.looked() == NUM_PARTS
    look_log(archive).unlink()

    num_lost = 0
    for stage, kill_at in (("look_at_parts", 1), ("look_at_parts", 4), ("people", NUM_PARTS)):
        with disturbed.started() as driver:
            if stage == "look_at_parts":
                disturbed.kill_worker(stage, driver)
                num_lost += 1
            disturbed.wait_until(lambda at=kill_at: disturbed.looked() >= at, driver)  # type: ignore[misc]
            num_lost += len(titled(driver.pid, "look_at_parts"))
    for kill_at in (2, 5):
        with disturbed.started() as driver:
            disturbed.kill_worker("ChaosDecoder", driver)
            disturbed.wait_until(lambda at=kill_at: disturbed.labeled() >= at, driver)  # type: ignore[misc]
    disturbed.finish()
    assert_equal_row_for_row(Path(undisturbed.out), Path(disturbed.out))
    people = [(tmp_path / name / "_people.parquet").read_bytes() for name in ("undisturbed", "disturbed")]
    assert people[0] == people[1], "the same bytes wherever and whenever"
    looked = look_log(archive).read_text().split()
    assert set(looked) == set(LOOKS.read_index(disturbed.out)["chunk_id"].to_pylist())
    assert len(looked) - NUM_PARTS <= num_lost, "a kill repeats at most the parts in hand"
