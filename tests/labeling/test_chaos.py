"""Labeling on three nodes whose processes and nodes are killed at any moment: its tables are those of an undisturbed run.

`make chaos` kills 50 times.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
from tests.models.detectors import save_detector
from tests.nodes import Nodes, require_namespaces, workers

pytestmark = [pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(2 * HANG_LIMIT_S)]

NUM_GOOD = 10


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (1, 2, 2)) as running:
        yield running


@pytest.mark.parametrize(("kind", "empty"), [("classifier", "activity"), ("detector", "windows")])
def test_kills_of_processes_and_nodes_change_nothing(
    nodes: Nodes, model: str, tmp_path: Path, kind: str, empty: str
) -> None:
    if kind == "detector":
        model = save_detector(tmp_path / "detector")
    archive = write_archive(tmp_path / "archive", num_good=NUM_GOOD)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"

    def start(out: Path) -> "subprocess.Popen[bytes]":
        return nodes.driver(*command(archive, out, model))

    assert start(undisturbed).wait(HANG_LIMIT_S) == 0, nodes.log("driver")
    assert_everything_is_accounted_for(undisturbed)
    decode_log(archive).unlink()

    replaced = iter([1, 2])
    chaos = Chaos(
        archive,
        disturbed,
        lambda: start(disturbed),
        lambda word: workers(nodes, word),
        NUM_GOOD * CHUNKS_PER_VIDEO,
        {"node": lambda: nodes.replace(next(replaced))},
        seed=7,
    )
    chaos.run(4, lambda: nodes.log("driver"))
    assert sorted(chaos.killed) == ["decoder", "driver", "labeler", "node"]
    assert_everything_is_accounted_for(disturbed)
    assert_equal_row_for_row(undisturbed, disturbed, empty=empty)
    chaos.assert_little_was_decoded_twice()
