"""Labels as CSV files for Excel, R, pandas and SPSS: a row per event, a row per video and person, and what has no labels.

UTF-8 with a byte order mark, without which Excel takes another encoding; lines end with CRLF. Names are written by the rules of
`microaction.export.cells`, so that none of them becomes a formula, a number or a date.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache

from microaction import storage
from microaction.export.cells import csv_text
from microaction.export.exporter import Exporter, Written
from microaction.export.labels import Labels, VideoLabels
from microaction.export.rows import (
    EVENT_COLUMNS,
    FAILURE_COLUMNS,
    SUMMARY_COLUMNS,
    Cell,
    event_rows,
    failure_rows,
    summary_rows,
)

EVENTS_FILE, SUMMARY_FILE, FAILURES_FILE = "events.csv", "summary.csv", "failures.csv"
ENCODING = "utf-8-sig"
MAX_REMEMBERED_TEXTS = 10_000  # names and actions recur in many rows


@dataclass(frozen=True)
class Dialect:
    """What separates cells, and what stands before the decimals of a number."""

    separator: str
    decimal_mark: str


POINT = Dialect(",", ".")  # R's read.csv, pandas, and Excel with English settings
COMMA = Dialect(";", ",")  # R's read.csv2, and Excel with German, French, Italian, Spanish, … settings
WriteRow = Callable[[Iterable[Cell]], None]


def csv_exporter(dialect: Dialect) -> Exporter:
    """Return the exporter of a dialect."""

    def write(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:  # noqa: ARG001 - the interface
        return write_csv(videos, dest, dialect)

    return Exporter("CSV tables", write)


def write_csv(videos: Iterable[VideoLabels], dest: str, dialect: Dialect) -> Written:
    """Write events.csv, summary.csv and failures.csv into a folder: columns of `rows`, by video."""
    tables = {
        EVENTS_FILE: (EVENT_COLUMNS, event_rows),
        SUMMARY_FILE: (SUMMARY_COLUMNS, summary_rows),
        FAILURES_FILE: (FAILURE_COLUMNS, failure_rows),
    }
    locations = [storage.join(dest, name) for name in tables]
    num_videos = num_events = 0
    with ExitStack() as stack:
        write_rows = [stack.enter_context(_open_table(location, dialect)) for location in locations]
        for write_row, (columns, _) in zip(write_rows, tables.values(), strict=True):
            write_row(columns)
        for video in videos:
            num_videos += 1
            num_events += len(video.events)
            for write_row, (_, rows_of) in zip(write_rows, tables.values(), strict=True):
                for row in rows_of(video):
                    write_row(row)
    return Written(tuple(locations), num_videos, num_events)


@contextmanager
def _open_table(location: str, dialect: Dialect) -> Iterator[WriteRow]:
    texts = lru_cache(MAX_REMEMBERED_TEXTS)(csv_text)

    def written(cell: Cell) -> Cell:
        if isinstance(cell, str):
            return texts(cell)
        return repr(cell).replace(".", dialect.decimal_mark) if isinstance(cell, float) else cell

    with storage.open_output(location) as file:
        text = io.TextIOWrapper(file, ENCODING, newline="")
        writer = csv.writer(text, delimiter=dialect.separator, lineterminator="\r\n")
        yield lambda row: writer.writerow(map(written, row))
        text.detach()  # flushes; the file stays open


EXPORTER = csv_exporter(POINT)
