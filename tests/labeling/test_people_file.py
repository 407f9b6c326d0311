"""`people.parquet`: what users edit in it is not overwritten."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microaction import storage
from microaction.labeling.people import PeopleError
from microaction.labeling.people_file import PEOPLE_FILE, WRITTEN_FILE, check_unedited, write_people_list
from microaction.labeling.people_list import read_people_list
from microaction.schema import PEOPLE_LIST


def listed(*people: int) -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(PEOPLE_LIST.names, 1) | dict.fromkeys(("video", "video_version"), "v")
    row |= dict.fromkeys(("name", "body", "error", "reason"))
    return pa.Table.from_pylist([row | {"person": person} for person in people], schema=PEOPLE_LIST)


def persons(out: Path) -> list[int]:
    found: list[int] = read_people_list(str(out / PEOPLE_FILE))["person"].to_pylist()
    return found


def edit(out: Path) -> None:
    frame = pd.read_parquet(out / PEOPLE_FILE)
    frame["name"] = "Anna"
    frame.to_parquet(out / PEOPLE_FILE, index=False)


def test_what_was_written_is_written_again(tmp_path: Path) -> None:
    check_unedited(str(tmp_path))
    assert write_people_list(listed(1), str(tmp_path)) == str(tmp_path / PEOPLE_FILE)
    check_unedited(str(tmp_path))
    write_people_list(listed(1, 2), str(tmp_path))
    write_people_list(listed(3), str(tmp_path))
    assert persons(tmp_path) == [3]


def test_an_edited_list_is_kept(tmp_path: Path) -> None:
    write_people_list(listed(1), str(tmp_path))
    edit(tmp_path)
    for write in (lambda: check_unedited(str(tmp_path)), lambda: write_people_list(listed(2), str(tmp_path))):
        with pytest.raises(PeopleError, match=r"people.parquet was edited since it was written: .* --overwrite$"):
            write()
    assert persons(tmp_path) == [1]
    write_people_list(listed(2), str(tmp_path), overwrite=True)
    assert persons(tmp_path) == [2]
    check_unedited(str(tmp_path))


def test_a_list_without_a_note_counts_as_edited(tmp_path: Path) -> None:
    pq.write_table(listed(1), tmp_path / PEOPLE_FILE)
    with pytest.raises(PeopleError):
        check_unedited(str(tmp_path))
    for note in ("", "[]", '{"sha256": 3}', "\x00"):
        (tmp_path / WRITTEN_FILE).write_text(note)
        with pytest.raises(PeopleError):
            check_unedited(str(tmp_path))


@pytest.mark.parametrize("killed_at", [WRITTEN_FILE, PEOPLE_FILE])
def test_a_kill_between_does_not_make_it_look_edited(
    killed_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_people_list(listed(1), str(tmp_path))
    write_bytes = storage.write_bytes

    def killed(uri: str, data: bytes) -> None:
        if uri.endswith(killed_at):
            raise KeyboardInterrupt
        write_bytes(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            write_people_list(listed(2), str(tmp_path))
    assert persons(tmp_path) == [1]
    check_unedited(str(tmp_path))
    write_people_list(listed(2), str(tmp_path))
    assert persons(tmp_path) == [2]


def test_a_deleted_list_is_written_anew(tmp_path: Path) -> None:
    write_people_list(listed(1), str(tmp_path))
    (tmp_path / PEOPLE_FILE).unlink()
    check_unedited(str(tmp_path))
    write_people_list(listed(2), str(tmp_path))
    assert persons(tmp_path) == [2]
