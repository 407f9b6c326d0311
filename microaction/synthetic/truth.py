"""What drawn videos show and when: events, and the table that lists them."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from microaction.synthetic.tables import write_atomically
from microaction.taxonomy import ACTIONS

TRUTH_HEADER = ("action_id", "action", "start_s", "end_s")


@dataclass(frozen=True)
class TruthEvent:
    """The action that a video shows over [start_s, end_s). Both times are those of frames."""

    action: int
    start_s: float
    end_s: float


def write_truth(
    path: Path, key_columns: Sequence[str], events_of: Iterable[tuple[tuple[str | int, ...], Iterable[TruthEvent]]]
) -> None:
    """Write events as a CSV file with the given columns, whose values come with the events, and those of `TRUTH_HEADER`."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*key_columns, *TRUTH_HEADER))
    for key, events in events_of:
        for event in events:
            start, end = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
            writer.writerow((*key, event.action, ACTIONS[event.action], start, end))
    write_atomically(path, table.getvalue())
