"""The Excel workbook, read back with openpyxl."""

from pathlib import Path
from typing import Any

import openpyxl
import pytest

from microaction.export import xlsx
from microaction.export.cells import read_plain
from microaction.export.labels import Event, Labels, read_labels
from microaction.export.rows import EVENT_COLUMNS, SUMMARY_COLUMNS, event_rows, failure_rows, summary_rows
from microaction.export.xlsx import MAX_CHARACTERS, write_xlsx
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
ODD_NAMES = ("#N/A", "3/4", "007", "2024-01-02", "TRUE", "_x000A_", " two ", "", "\x00\x1b[31m", "1" * 300)
SHEETS = ["events", "summary", "failures", "about"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    names = [*HOSTILE_NAMES, *(name for name in ODD_NAMES if "\x00" not in name and name)]
    videos = [
        Video("one.mp4", [Event(2, SHAKING_LEGS, 1.000001, 9.5, 1 / 3, 0.6)], names={1: "=1+1", 2: "\x00=1"}),
        Video("two.mp4", [], failures=[(0.0, None, "decode_error", "=" * (MAX_CHARACTERS + 1))], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name}) for name in names),
    ]
    return read_labels(str(write_output(tmp_path_factory.mktemp("labels") / "out", "/archive", videos)))


@pytest.fixture
def workbook(labels: Labels, tmp_path: Path) -> Any:
    written = write_xlsx(labels, labels.each_video(), str(tmp_path))
    assert written.locations == (str(tmp_path / "labels.xlsx"),)
    assert (written.num_videos, written.num_events) == (labels.totals["num_videos"], labels.totals["num_events"])
    return openpyxl.load_workbook(written.locations[0])


def values(sheet: Any) -> list[tuple[Any, ...]]:
    return [
        tuple(read_plain(value) if isinstance(value, str) else value for value in row)
        for row in sheet.iter_rows(min_row=2, values_only=True)
    ]


def test_tables_are_read_back_equal(labels: Labels, workbook: Any) -> None:
    assert workbook.sheetnames == SHEETS
    videos = list(labels.each_video())
    assert [cell.value for cell in workbook["events"][1]] == list(EVENT_COLUMNS)
    assert values(workbook["events"]) == [row for video in videos for row in event_rows(video)]
    assert [cell.value for cell in workbook["summary"][1]] == list(SUMMARY_COLUMNS)
    assert values(workbook["summary"]) == [row for video in videos for row in summary_rows(video)]
    ((*row, reason, attempts),) = values(workbook["failures"])
    assert (row, attempts) == (["two.mp4", None, 0, None, "decode", "decode_error"], 1)
    (failure,) = (row for video in videos for row in failure_rows(video))
    assert reason == str(failure[-2])[: MAX_CHARACTERS - 1] + "…", "a cell holds no more"


def test_text_is_text_and_numbers_are_numbers(workbook: Any) -> None:
    kinds = {"video": "s", "name": "s", "body_part": "s", "action": "s", "model": "s"}
    for row in workbook["events"].iter_rows(min_row=2):
        assert [cell.data_type for cell in row] == [kinds.get(column, "n") for column in EVENT_COLUMNS]
    for sheet in workbook:
        assert not [cell for row in sheet for cell in row if cell.data_type not in "sn"], "no formulas, errors or dates"
    assert isinstance(workbook["events"]["G2"].value, float | int)


def test_headers_stay_in_sight_and_filter(labels: Labels, workbook: Any) -> None:
    for name, last in (("events", f"K{labels.totals['num_events'] + 1}"), ("failures", "H2")):
        assert workbook[name].freeze_panes == "A2"
        assert workbook[name].auto_filter.ref == f"A1:{last}"
        assert workbook[name].column_dimensions["A"].width > 30


def test_about_says_what_the_labels_are_of(labels: Labels, workbook: Any) -> None:
    facts = dict(values(workbook["about"]))
    assert (facts["archive"], facts["labels"], facts["model"]) == ("/archive", labels.out, "demo-detector")
    assert {f"column {name}" for name in EVENT_COLUMNS} <= facts.keys(), "every column is described"


def test_a_long_table_continues_on_another_sheet(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xlsx, "MAX_ROWS", 8)
    write_xlsx(labels, labels.each_video(), str(tmp_path))
    workbook = openpyxl.load_workbook(tmp_path / "labels.xlsx")
    events = [name for name in workbook.sheetnames if name.startswith("events")]
    assert events == ["events", "events 2", "events 3"]
    assert workbook.sheetnames.index("events 3") < workbook.sheetnames.index("summary")
    assert [workbook[name].max_row for name in events[:2]] == [8, 8]
    assert {workbook[name].auto_filter.ref for name in events[:2]} == {"A1:K8"}
    found = [row for name in events for row in values(workbook[name])]
    assert found == [row for video in labels.each_video() for row in event_rows(video)]
