"""Labeling on three nodes under many kills of drivers, decoders, labelers and whole nodes, compared with an undisturbed run.

python -m tests.benchmarks.labeling_chaos [--kills 50] [--videos 150] [--seed 0]

Needs root and network namespaces. Ends with an error if the tables are not those of the undisturbed run.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from tests.archives import write_model
from tests.benchmarks.timing import console
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
from tests.nodes import Nodes, workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--videos", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ma-", dir="/tmp") as folder, Nodes(Path(folder), (1, 2, 2)) as nodes:
        root = Path(folder)
        archive = write_archive(root / "archive", num_good=arguments.videos)
        (root / "model").mkdir()
        model = write_model(root / "model")
        started_s = time.monotonic()
        if nodes.driver(*command(archive, root / "undisturbed", model)).wait(HANG_LIMIT_S):
            sys.exit(nodes.log("driver"))
        undisturbed_s = time.monotonic() - started_s
        decode_log(archive).unlink()
        choice, out = random.Random(arguments.seed), root / "disturbed"
        chaos = Chaos(
            archive,
            out,
            lambda: nodes.driver(*command(archive, out, model)),
            lambda word: workers(nodes, word),
            arguments.videos * CHUNKS_PER_VIDEO,
            {"node": lambda: nodes.replace(choice.choice([1, 2]))},
            seed=arguments.seed,
        )
        started_s = time.monotonic()
        chaos.run(arguments.kills, lambda: nodes.log("driver"))
        disturbed_s = time.monotonic() - started_s
        assert_everything_is_accounted_for(out)
        assert_equal_row_for_row(root / "undisturbed", out)
        chaos.assert_little_was_decoded_twice()
        decoded = decode_log(archive).read_text().split()
    table = Table(show_header=False, title="Labeling under kills: the tables are those of the undisturbed run")
    table.add_row("kills", ", ".join(f"{number} {victim}s" for victim, number in sorted(chaos.killed.items())))
    table.add_row("chunks", str(len(set(decoded))))
    table.add_row("decoded again", str(len(decoded) - len(set(decoded))))
    table.add_row("in flight at the kills", str(len(chaos.in_flight)))
    table.add_row("undisturbed, disturbed", f"{undisturbed_s:.0f} s, {disturbed_s:.0f} s")
    console.print(table)


if __name__ == "__main__":
    main()
