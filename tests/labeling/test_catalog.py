"""Catalogs that people wrote or edited themselves; test_run.py has those that the job makes."""

from pathlib import Path

import pyarrow as pa
import pytest

from microaction.labeling.catalog import CatalogError, read_catalog, write_catalog
from microaction.schema import CATALOG


def written(path: Path, *videos: str | None, **columns: object) -> str:
    rows = [{"video": video, "version": "1", "size_bytes": 9, "duration_s": 1.0} | columns for video in videos]
    by_hand = pa.schema([field.with_nullable(True) for field in CATALOG])
    write_catalog(pa.Table.from_pylist(rows, schema=by_hand), str(path))
    return str(path)


def test_rows_may_be_in_any_order(tmp_path: Path) -> None:
    assert read_catalog(written(tmp_path / "c", "b", "c", "a"))["video"].to_pylist() == ["a", "b", "c"]
    assert len(read_catalog(written(tmp_path / "c"))) == 0


@pytest.mark.parametrize(
    ("videos", "columns", "message"),
    [
        (("a", "b", "a"), {}, "a occurs twice; a video has one row and one region"),
        (("a", None), {}, ".*video.* non-nullable"),
        (("a",), {"region_left": 1}, "a: "),
    ],
)
def test_ambiguous_or_incomplete_rows_are_refused(
    tmp_path: Path, videos: tuple[str | None, ...], columns: dict[str, object], message: str
) -> None:
    with pytest.raises(CatalogError, match=rf"c is not a catalog: {message}"):
        read_catalog(written(tmp_path / "c", *videos, **columns))
