"""Labelling that is killed again and again, wherever it is, and started again: its tables are those of a quiet run."""

import os
import subprocess
from pathlib import Path

import pytest
import ray

from tests.labeling.chaos import (
    CHUNKS_PER_VIDEO,
    Chaos,
    assert_equal_row_for_row,
    assert_everything_is_accounted_for,
    command,
    write_archive,
)
from tests.labeling.decoders import notes_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

ROOT = Path(__file__).parents[2]
KILLS = 6
NUM_GOOD = 24


def workers(word: str) -> list[int]:
    """Process IDs of this session's Ray workers whose title holds a word."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", f"^ray::.*{word}"]
    return [int(pid) for pid in subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()]


@pytest.mark.timeout(900)
def test_kills_of_drivers_decoders_and_labelers_change_nothing(model: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", num_good=NUM_GOOD)
    log = tmp_path / "driver.log"

    def start(out: Path) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        with log.open("ab") as file:
            return subprocess.Popen(command(archive, out, model), cwd=ROOT, env=environment, stdout=file, stderr=file)

    def tail() -> str:
        return log.read_text()[-2000:]

    assert start(tmp_path / "quiet").wait(300) == 0, tail()
    notes_of(archive).unlink()
    out, num_chunks = tmp_path / "disturbed", NUM_GOOD * CHUNKS_PER_VIDEO
    chaos = Chaos(archive, out, lambda: start(out), workers, num_chunks, seed=5)
    chaos.run(KILLS, tail)
    assert sorted(chaos.killed.values()) == [2, 2, 2]
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(tmp_path / "quiet", out)
    chaos.assert_little_was_done_twice()
