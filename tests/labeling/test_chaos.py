"""Labeling that is killed again and again, at any moment, and started again: its tables are those of an undisturbed run."""

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
    HANG_LIMIT_S,
    Chaos,
    assert_equal_row_for_row,
    assert_everything_is_accounted_for,
    command,
    write_archive,
)
from tests.labeling.decoders import decode_log
from tests.nodes import Nodes, require_namespaces, workers

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(2 * HANG_LIMIT_S),
]

ROOT = Path(__file__).parents[2]
NUM_GOOD = 10


class Undisturbed(NamedTuple):
    """The archive and the output of a run without kills."""

    archive: Path
    out: Path


def start(archive: Path, out: Path, model: str) -> "subprocess.Popen[bytes]":
    """Start the command on this session's Ray; its output goes to a file beside its folder."""
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with out.with_suffix(".log").open("ab") as file:
        return subprocess.Popen(command(archive, out, model), cwd=ROOT, env=environment, stdout=file, stderr=file)


def log_of(out: Path) -> str:
    return out.with_suffix(".log").read_text()[-2000:]


def session_workers(word: str) -> list[int]:
    """Return the IDs of this session's Ray workers whose title contains a word."""
    find_raylet = ["pgrep", "--parent", str(os.getpid()), "raylet"]
    raylet = subprocess.run(find_raylet, check=True, capture_output=True, text=True).stdout.strip()
    find = ["pgrep", "--parent", raylet, "--full", f"^ray::.*{word}"]
    return [int(pid) for pid in subprocess.run(find, check=False, capture_output=True, text=True).stdout.split()]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    archive, out = write_archive(folder / "archive", num_good=NUM_GOOD), folder / "out"
    assert start(archive, out, model).wait(HANG_LIMIT_S) == 0, log_of(out)
    assert_everything_is_accounted_for(out)
    return Undisturbed(archive, out)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (1, 2, 2)) as running:
        yield running


def test_killed_drivers_decoders_and_labelers_change_nothing(
    undisturbed: Undisturbed, model: str, tmp_path: Path
) -> None:
    archive, out = undisturbed.archive, tmp_path / "out"
    decode_log(archive).unlink()
    num_chunks = NUM_GOOD * CHUNKS_PER_VIDEO
    chaos = Chaos(archive, out, lambda: start(archive, out, model), session_workers, num_chunks, seed=5)
    chaos.run(4, lambda: log_of(out))
    assert len(chaos.killed) == 3
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(undisturbed.out, out)
    chaos.assert_little_was_decoded_twice()


@pytest.mark.long
def test_killed_and_replaced_nodes_change_nothing(
    undisturbed: Undisturbed, nodes: Nodes, model: str, tmp_path: Path
) -> None:
    archive, out = undisturbed.archive, tmp_path / "out"
    decode_log(archive).unlink()
    num_chunks = NUM_GOOD * CHUNKS_PER_VIDEO
    replaced = iter([1, 2])
    chaos = Chaos(
        archive,
        out,
        lambda: nodes.driver(*command(archive, out, model)),
        lambda word: workers(nodes, word),
        num_chunks,
        {"node": lambda: nodes.replace(next(replaced))},
        seed=7,
    )
    chaos.run(4, lambda: nodes.log("driver"))
    assert sorted(chaos.killed) == ["decoder", "driver", "labeler", "node"]
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(undisturbed.out, out)
    chaos.assert_little_was_decoded_twice()
