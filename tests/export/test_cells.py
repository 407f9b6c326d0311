"""Names in cells: they do nothing, and are read back as they were."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.export.cells import FORMULA_MARKS, csv_text, plain_text, read_cell, read_plain
from microaction.pages import printable
from tests.export.outputs import HOSTILE_NAMES

# Every code point: lone surrogates too, which file names that are not UTF-8 have.
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
lookalikes = st.text(st.sampled_from("\\u005cx_0aA'\"=+-@,; \t\n\r12./:e"), max_size=12)


@given(texts | lookalikes)
def test_every_text_is_read_back(text: str) -> None:
    assert read_cell(csv_text(text)) == text
    assert read_plain(plain_text(text)) == text


@given(texts | lookalikes)
def test_no_cell_controls_what_is_around_it(text: str) -> None:
    for cell in (csv_text(text), plain_text(text)):
        assert printable(cell) == cell
        assert cell.splitlines() in ([], [cell])
        cell.encode()  # without a lone surrogate
    assert not csv_text(text).strip().startswith(tuple(FORMULA_MARKS))


@given(st.integers() | st.floats() | st.dates() | st.datetimes() | st.times())
def test_a_name_that_is_a_number_or_a_date_stays_text(value: object) -> None:
    assert csv_text(str(value)).startswith("'")
    assert read_cell(csv_text(str(value))) == str(value)


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1", "=cmd|' /C calc'!A0.mp4", "-", "--help"),
        *("1-2", "1/2", "3.4.", "1,000", "12%", "$12", "(12)", "1e5", "2E10", "007", "1 1/2", "٣"),
        *("2024-01-02", "1:30", "10 am", "9 p", "12:30:15 PM", "Mar 1", "SEPT2", "DEC1", "3. März", "1-Okt-24"),
        *("TRUE", "false", "NA", "nan", "NULL", "N/A", "'quoted"),
    ],
)
def test_what_programs_convert_has_an_apostrophe(text: str) -> None:
    assert csv_text(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["interview_1.mp4", "1-2.mp4", "2024-01-02/3.mp4", "person 2", "Ann", "März", "a'b", "ü 🙂", "S01E02", ""]
)
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert csv_text(text) == text == plain_text(text)


def test_controls_are_visible() -> None:
    assert csv_text("line\nbreak\t.mp4") == r"line\u000abreak\u0009.mp4"
    assert csv_text("\u202egnp.mp4") == r"\u202egnp.mp4"
    assert plain_text("\udce4") == r"\udce4"
    assert plain_text(r"\u000a") == r"\u005cu000a", "the name itself has a backslash"
    assert plain_text("_x000A_") == r"\u005fx000A_", "Excel would read a line break"


def test_no_other_separator_cuts_a_formula_out_of_a_name() -> None:
    for name in ("a;=cmd|' /C calc'!A0", 'a, "=1"', "a;;@x", "a;\t-1"):
        file = io.StringIO(newline="")
        csv.writer(file).writerow(["v", csv_text(name), csv_text(name)])
        for delimiter in ",;\t":
            file.seek(0)
            cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
            assert not any(cell.strip("\"' ").startswith(tuple(FORMULA_MARKS)) for cell in cells), cells
        assert read_cell(csv_text(name)) == name
    assert csv_text("a,b;c.mp4") == "a,b;c.mp4"


def test_hostile_names_survive_a_csv_file() -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([csv_text(name), name] for name in HOSTILE_NAMES)
    file.seek(0)
    assert [read_cell(cell) for cell, _ in csv.reader(file)] == list(HOSTILE_NAMES)
