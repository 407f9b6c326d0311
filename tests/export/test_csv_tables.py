"""CSV tables: read back equal by the programs that people use, and harmless in spreadsheets."""

import csv
import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microaction.export.cells import FORMULA_MARKS, read_cell
from microaction.export.csv_tables import COMMA, POINT, csv_exporter
from microaction.export.labels import Event, Labels, Selection, read_labels
from microaction.export.rows import EVENT_COLUMNS, FAILURE_COLUMNS, SUMMARY_COLUMNS
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
NAMES = {1: "Ü, Ann", 2: "3/4", 3: "=1+1"}
MERGED_S = 2.5  # of two events of an action that overlap


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    nodding = [Event(1, NODDING, 3.0, 4.5, 0.9, 0.95), Event(1, NODDING, 4.25, 5.5, 1 / 3, 0.5)]
    videos = [
        Video("one.mp4", [*nodding, Event(2, SHAKING_LEGS, 1.000001, 9.5, 0.4, 0.6)], names=NAMES),
        Video("two.mp4", [], failures=[(0.0, None, "decode_error", "no picture;\n=1")], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name}) for name in HOSTILE_NAMES),
    ]
    return read_labels(str(write_output(tmp_path_factory.mktemp("labels") / "out", "/archive", videos)))


@pytest.fixture(scope="module")
def folder(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables in both dialects: point/ and comma/."""
    folder = tmp_path_factory.mktemp("csv")
    for name, dialect in (("point", POINT), ("comma", COMMA)):
        written = csv_exporter(dialect).write(labels, labels.each_video(), str(folder / name))
        assert (written.num_videos, written.num_events) == (2 + len(HOSTILE_NAMES), 3 + len(HOSTILE_NAMES))
        assert {Path(location).name for location in written.locations} == {"events.csv", "summary.csv", "failures.csv"}
    return folder


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter, strict=True))


def test_events_are_read_back_equal(labels: Labels, folder: Path) -> None:
    rows = rows_of(folder / "point/events.csv")
    assert tuple(rows[0]) == EVENT_COLUMNS
    found = [
        (
            read_cell(row["video"]),
            read_cell(row["name"]),
            int(row["person"]),
            int(row["action_id"]),
            float(row["start_s"]),
            float(row["end_s"]),
            np.float32(row["probability"]),
        )
        for row in rows
    ]
    assert found == [
        (video.name, video.person_name(event.person), *event[:4], np.float32(event.probability))
        for video in labels.each_video()
        for event in video.events
    ]
    for row in rows:
        assert row["action"] == ACTIONS[int(row["action_id"])]
        assert row["body_part"] == BODY_PARTS[BODY_PART_OF[int(row["action_id"])]]
        assert float(row["duration_s"]) == pytest.approx(float(row["end_s"]) - float(row["start_s"]), abs=1e-9)
        assert row["model"] == "demo-detector"
    assert {row["probability"] for row in rows} == {"0.9", "0.33333334", "0.4", "0.7"}


def test_a_person_without_events_has_a_row_of_zeros(folder: Path) -> None:
    rows = {(row["video"], row["person"]): row for row in rows_of(folder / "point/summary.csv")}
    nobody = rows["one.mp4", "3"]
    assert tuple(nobody) == SUMMARY_COLUMNS
    assert {float(nobody[column]) for column in SUMMARY_COLUMNS[4:]} == {0.0}
    assert read_cell(nobody["name"]) == "=1+1"


def test_the_summary_agrees_with_the_published_rates(labels: Labels, folder: Path) -> None:
    table = pd.read_csv(folder / "point/summary.csv")
    people = {row["person"]: row for row in labels.video("one.mp4").people}
    for row in table[table["video"] == "one.mp4"].to_dict("records"):
        published = people[row["person"]]
        for name in ("covered_s", "num_events", "events_per_minute"):
            assert row[name] == pytest.approx(published[name])
        for action in published["actions"]:
            assert row[f"{action['action']}: count"] == action["num_events"]
            assert row[f"{action['action']}: per minute"] == pytest.approx(action["events_per_minute"])
    ann = table[(table["video"] == "one.mp4") & (table["person"] == 1)]
    assert ann["nodding: seconds"].tolist() == [MERGED_S], "what overlaps counts once"


def test_rates_without_cover_are_empty(tmp_path: Path) -> None:
    videos = [Video("v.mp4", names={1: "Ann"}, failures=[(0.0, 60.0, "decode_error", "broken")])]
    labels = read_labels(str(write_output(tmp_path / "out", "/archive", videos)))
    csv_exporter(POINT).write(labels, labels.each_video(), str(tmp_path / "csv"))
    (row,) = rows_of(tmp_path / "csv/summary.csv")
    assert (row["covered_s"], row["events_per_minute"], row["nodding: per minute"]) == ("0.0", "", "")


def test_failures_are_listed_with_their_reason(folder: Path) -> None:
    (row,) = rows_of(folder / "point/failures.csv")
    assert tuple(row) == FAILURE_COLUMNS
    assert (row["video"], row["person"], row["end_s"], row["error"]) == ("two.mp4", "", "", "decode_error")
    assert read_cell(row["reason"]) == "no picture;\n=1"


@pytest.mark.parametrize("name", ["events.csv", "summary.csv", "failures.csv"])
def test_pandas_reads_both_dialects_as_the_same_table(name: str, folder: Path) -> None:
    point = pd.read_csv(folder / "point" / name)
    comma = pd.read_csv(folder / "comma" / name, sep=";", decimal=",")
    pd.testing.assert_frame_equal(point, comma)
    assert point.columns[0] == "video", "without the byte order mark"
    for column in point.columns:
        is_text = column in {"video", "name", "body_part", "action", "model", "stage", "error", "reason"}
        assert pd.api.types.is_numeric_dtype(point[column]) != is_text, column


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed: apt-get install r-base-core")
@pytest.mark.parametrize("name", ["events.csv", "summary.csv", "failures.csv"])
def test_r_reads_both_dialects_as_the_same_table(name: str, folder: Path, tmp_path: Path) -> None:
    script = """
        arguments <- commandArgs(TRUE)
        point <- read.csv(arguments[1], fileEncoding = "UTF-8-BOM", check.names = FALSE)
        comma <- read.csv2(arguments[2], fileEncoding = "UTF-8-BOM", check.names = FALSE)
        stopifnot(isTRUE(all.equal(point, comma)))
        write.csv(point, arguments[3], row.names = FALSE, na = "", fileEncoding = "UTF-8")
    """
    paths = (folder / "point" / name, folder / "comma" / name, tmp_path / "again.csv")
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run(["Rscript", "-e", script, *map(str, paths)], env=environment, check=True)
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), pd.read_csv(paths[0]), check_dtype=False)


@pytest.mark.parametrize("name", ["events.csv", "summary.csv", "failures.csv"])
@pytest.mark.parametrize("dialect", ["point", "comma"])
def test_files_have_the_form_that_excel_opens(name: str, dialect: str, folder: Path) -> None:
    data = (folder / dialect / name).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r"), "a row is a line"
    data.decode("utf-8-sig")


@pytest.mark.parametrize("name", ["events.csv", "summary.csv", "failures.csv"])
@pytest.mark.parametrize("dialect", ["point", "comma"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_no_spreadsheet_finds_a_formula(name: str, dialect: str, delimiter: str, folder: Path) -> None:
    """Whatever it takes for the separator."""
    text = (folder / dialect / name).read_text("utf-8-sig")
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        assert not [cell for cell in row if cell.strip("\"' ").startswith(tuple(FORMULA_MARKS)) and cell[0] != "'"]


def test_a_failed_export_leaves_the_old_tables(labels: Labels, tmp_path: Path) -> None:
    csv_exporter(POINT).write(labels, labels.each_video(Selection(["one.mp4"])), str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def videos() -> object:
        yield from labels.each_video(Selection(["two.mp4"]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        csv_exporter(POINT).write(labels, videos(), str(tmp_path))  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
