"""Labelling over several nodes, of which some go while it runs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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

pytestmark = pytest.mark.cluster

PATIENCE_S = 300
NUM_GOOD = 24


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    require_namespaces()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (1, 2, 2)) as running:
        yield running


@pytest.mark.timeout(900)
def test_nodes_come_and_go_and_the_tables_are_those_of_a_quiet_run(nodes: Nodes, model: str, tmp_path: Path) -> None:
    """One each of drivers, decoders, labelers and whole nodes is killed."""
    archive = write_archive(tmp_path / "archive", num_good=NUM_GOOD)

    assert nodes.driver(*command(archive, tmp_path / "quiet", model)).wait(PATIENCE_S) == 0, nodes.log("driver")
    notes_of(archive).unlink()
    out = tmp_path / "disturbed"
    replaced = iter([1, 2])
    chaos = Chaos(
        archive,
        out,
        lambda: nodes.driver(*command(archive, out, model)),
        lambda word: workers(nodes, word),
        NUM_GOOD * CHUNKS_PER_VIDEO,
        {"node": lambda: nodes.replace(next(replaced))},
        seed=7,
    )
    chaos.run(4, lambda: nodes.log("driver"))
    assert sorted(chaos.killed) == ["decoder", "driver", "labeler", "node"]
    assert_everything_is_accounted_for(out)
    assert_equal_row_for_row(tmp_path / "quiet", out)
    chaos.assert_little_was_done_twice()
