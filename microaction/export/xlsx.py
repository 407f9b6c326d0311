"""Labels as an Excel workbook: sheets of events, of what each person does, of what has no labels, and about the labels.

Text is text whatever it looks like, and numbers are numbers. A table of more rows than a sheet may have continues on "events 2".
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from microaction import __version__, storage
from microaction.export.cells import plain_text
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
from microaction.schema import COLUMN_DOCS

if TYPE_CHECKING:
    from openpyxl import Workbook

WORKBOOK_FILE = "labels.xlsx"
MAX_ROWS = 1_048_576  # of a sheet, with its header: Excel's specification
MAX_CHARACTERS = 32_767  # of a cell: Excel's specification
FIRST_ROW_BELOW_HEADER = "A2"
WIDTHS = {
    "video": 36,
    "name": 16,
    "action": 26,
    "what": 30,
    "value": 90,
    "body_part": 12,
    "model": 30,
    "reason": 70,
}  # in characters
DEFAULT_WIDTH = 13


def write_xlsx(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write labels.xlsx into a folder: columns of `rows`, by video."""
    from openpyxl import Workbook

    location = storage.join(dest, WORKBOOK_FILE)
    workbook = Workbook(write_only=True)
    events = _Table(workbook, "events", EVENT_COLUMNS)
    summary = _Table(workbook, "summary", SUMMARY_COLUMNS)
    failures = _Table(workbook, "failures", FAILURE_COLUMNS)
    num_videos = num_events = 0
    for video in videos:
        num_videos += 1
        num_events += len(video.events)
        events.extend(event_rows(video))
        summary.extend(summary_rows(video))
        failures.extend(failure_rows(video))
    about = _Table(workbook, "about", ("what", "value"))
    about.extend(_facts(labels))
    for table in (events, summary, failures, about):
        table.finish()
    with storage.open_output(location) as file:
        workbook.save(file)
    return Written((location,), num_videos, num_events)


class _Table:
    """A table over as many sheets as it needs, each with a header that stays in sight and can filter."""

    def __init__(self, workbook: "Workbook", title: str, columns: Sequence[str]) -> None:
        self._workbook, self._title, self._columns = workbook, title, columns
        self._sheets: list[Any] = []
        self._num_rows = 0
        self._begin_sheet()

    def extend(self, rows: Iterable[Sequence[Cell]]) -> None:
        for row in rows:
            if self._num_rows == MAX_ROWS:
                self.finish()
                self._begin_sheet()
            self._sheets[-1].append([_cell(self._sheets[-1], value) for value in row])
            self._num_rows += 1

    def finish(self) -> None:
        from openpyxl.utils import get_column_letter

        self._sheets[-1].auto_filter.ref = f"A1:{get_column_letter(len(self._columns))}{self._num_rows}"

    def _begin_sheet(self) -> None:
        from openpyxl.utils import get_column_letter

        number = len(self._sheets) + 1
        index = self._workbook.index(self._sheets[-1]) + 1 if self._sheets else None
        sheet: Any = self._workbook.create_sheet(self._title if number == 1 else f"{self._title} {number}", index)
        sheet.freeze_panes = FIRST_ROW_BELOW_HEADER
        for place, column in enumerate(self._columns, start=1):
            sheet.column_dimensions[get_column_letter(place)].width = WIDTHS.get(column, DEFAULT_WIDTH)
        sheet.append(list(self._columns))
        self._sheets.append(sheet)
        self._num_rows = 1


def _cell(sheet: Any, value: Cell) -> Any:
    """Return what openpyxl writes as the text or number that a value is."""
    if not isinstance(value, str):
        return value
    text = plain_text(value)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS - 1]}…"
    if not text.startswith(("=", "#")):
        return text
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, text)
    cell.data_type = "s"  # not a formula or an error
    return cell


def _facts(labels: Labels) -> Iterable[tuple[str, str]]:
    """Yield what there is to know of the labels, and what the columns hold."""
    yield "archive", labels.archive
    yield "labels", labels.out
    yield "version of the labels", str(labels.totals["version"])
    yield "model", labels.model
    yield "written by", f"microaction {__version__}"
    for column in (*EVENT_COLUMNS, "covered_s", "events_per_minute", *FAILURE_COLUMNS[4:]):
        yield f"column {column}", _COLUMN_DOCS.get(column) or COLUMN_DOCS[column]
    yield "column nodding: count", "How many events of the action the person has."
    yield (
        "column nodding: per minute",
        "The same per minute of the time that labels cover; empty where they cover nothing.",
    )
    yield "column nodding: seconds", "Seconds that these events last; where they overlap, their time counts once."


_COLUMN_DOCS = {
    "video": "Path of the video in the archive.",
    "name": "Name that the list of people gives the person, or the number in words.",
    "duration_s": "Length of the event in seconds.",
}
EXPORTER = Exporter("Excel workbook", write_xlsx)
