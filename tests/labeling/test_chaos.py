"""Labelling that is killed again and again, wherever it is, and started again: its tables are those of a quiet run."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
from tests.nodes import Nodes, require_namespaces, workers

pytestmark = [pytest.mark.nodes, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
NUM_GOOD = 10
PATIENCE_S = 300


class Quiet(NamedTuple):
    """What nobody disturbed: the archive and the output."""

    archive: Path
    out: Path


def start(archive: Path, out: Path, model: str) -> "subprocess.Popen[bytes]":
    """The command, on this session's Ray; what it says goes to a file beside its output."""
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with out.with_suffix(".log").open("ab") as file:
        return subprocess.Popen(command(archive, out, model), cwd=ROOT, env=environment, stdout=file, stderr=file)


def log_of(out: Path) -> str:
    return out.with_suffix(".log").read_text()[-2000:]


def workers_here(word: str) -> list[int]:
    """Process IDs of this session's Ray workers whose title holds a word."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", f"^ray::.*{word}"]
    return [int(pid) for pid in subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()]


@pytest.fixture(scope="module")
def quiet(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    folder = tmp_path_factory.mktemp("quiet")
    archive, out = write_archive(folder / "archive", num_good=NUM_GOOD), folder / "out"
    assert start(archive, out, model).wait(PATIENCE_S) == 0, log_of(out)
    assert_everything_is_accounted_for(out)
    return Quiet(archive, out)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (1, 2, 2)) as running:
        yield running


def test_kills_of_drivers_decoders_and_labelers_change_nothing(quiet: Quiet, model: str, tmp_path: Path) -> None:
    notes_of(quiet.archive).unlink()
    out, num_chunks = tmp_path / "out", NUM_GOOD * CHUNKS_PER_VIDEO
    chaos = Chaos(quiet.archive, out, lambda: start(quiet.archive, out, model), workers_here, num_chunks, seed=5)
    chaos.run(4, lambda: log_of(out))
    assert len(chaos.killed) == 3
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(quiet.out, out)
    chaos.assert_little_was_done_twice()


def test_nodes_come_and_go_and_the_tables_are_those_of_a_quiet_run(
    quiet: Quiet, nodes: Nodes, model: str, tmp_path: Path
) -> None:
    notes_of(quiet.archive).unlink()
    out, num_chunks = tmp_path / "out", NUM_GOOD * CHUNKS_PER_VIDEO
    replaced = iter([1, 2])
    chaos = Chaos(
        quiet.archive,
        out,
        lambda: nodes.driver(*command(quiet.archive, out, model)),
        lambda word: workers(nodes, word),
        num_chunks,
        {"node": lambda: nodes.replace(next(replaced))},
        seed=7,
    )
    chaos.run(4, lambda: nodes.log("driver"))
    assert sorted(chaos.killed) == ["decoder", "driver", "labeler", "node"]
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(quiet.out, out)
    chaos.assert_little_was_done_twice()
