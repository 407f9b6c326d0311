import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microaction import storage
from microaction.labeling import ledger
from microaction.schema import COMMITTED_CHUNK, PLAN


def committed(chunk: str, *, attempts: int = 1, error: str | None = None, num_windows: int = 2) -> dict[str, Any]:
    return {
        "chunk_id": chunk,
        "video": f"video of {chunk}",
        "video_version": "1",
        "chunk_start_us": 0,
        "chunk_end_us": 9,
        "duration_us": 9,
        "attempts": attempts,
        "decoder": "none",
        "num_windows": num_windows,
        "window_start_us": list(range(num_windows)),
        "window_end_us": list(range(1, num_windows + 1)),
        "window_person": [0] * num_windows,
        "probabilities": [0.5] * 52 * num_windows,
        "window_run": [0] * num_windows,
        "tracks": None,
        "features": None,
        "stage": error and "decode",
        "error": error,
        "reason": error,
    }


def commit(out: Path, *rows: dict[str, Any]) -> str:
    return ledger.CHUNKS.commit(str(out), pa.Table.from_pylist(list(rows), schema=COMMITTED_CHUNK))


def plan(*chunks: str) -> pa.Table:
    rows = [
        {"chunk_id": chunk, "video_row": i, "chunk_start_us": 0, "chunk_end_us": 9, "num_windows": 1, "attempts": 1}
        for i, chunk in enumerate(chunks)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def index_of(out: Path) -> list[dict[str, Any]]:
    return sorted(ledger.CHUNKS.read_index(str(out)).to_pylist(), key=lambda row: (row["chunk_id"], row["attempts"]))


def test_an_empty_output_has_an_empty_ledger(tmp_path: Path) -> None:
    assert index_of(tmp_path) == []
    index = ledger.CHUNKS.read_index(str(tmp_path))
    assert ledger.subtract_committed(plan("a"), index, retry_failed=True).to_pylist() == plan("a").to_pylist()
    assert len(ledger.subtract_attempted(plan("a"), index)) == 1


def test_only_missing_chunks_and_retried_failures_are_left(tmp_path: Path) -> None:
    commit(tmp_path, committed("a"), committed("b", error="decode_error", num_windows=0))
    commit(tmp_path, committed("b", attempts=2, error="decode_error"))
    index = ledger.CHUNKS.read_index(str(tmp_path))
    todo = ledger.subtract_committed(plan("a", "b", "c"), index, retry_failed=False)
    assert todo["chunk_id"].to_pylist() == ["c"]
    todo = ledger.subtract_committed(plan("a", "b", "c"), index, retry_failed=True)
    assert todo.select(["chunk_id", "attempts"]).to_pylist() == [
        {"chunk_id": "b", "attempts": 3},
        {"chunk_id": "c", "attempts": 1},
    ]
    assert ledger.subtract_attempted(todo, index).equals(todo), "the third attempt at b has left no row yet"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_best_of_several_rows_counts_in_any_order(order: tuple[int, ...]) -> None:
    rows = [
        committed("a", error="decode_error", num_windows=1),
        committed("a", attempts=2, error="decode_error", num_windows=2),
        committed("a", attempts=3, error="worker_died", num_windows=0),
        committed("b", attempts=2),
    ]
    table = pa.Table.from_pylist([rows[i] for i in order], schema=COMMITTED_CHUNK)
    best = ledger.best_rows(table).to_pylist()
    assert [(row["chunk_id"], row["attempts"]) for row in best] == [("a", 2), ("b", 2)]


def test_an_interrupted_compaction_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [commit(tmp_path, committed(f"{i:02d}")) for i in range(7)]
    before = index_of(tmp_path)

    def rows(chunks: list[str]) -> list[dict[str, Any]]:
        index = ledger.CHUNKS.read_index(str(tmp_path))
        found = ledger.CHUNKS.read_rows(
            str(tmp_path),
            index["file"].unique().to_pylist(),
            pa.array(chunks),
            (f"video of {chunks[0]}", "video of 99"),
        )
        return sorted(found.to_pylist(), key=lambda row: row["chunk_id"])

    expected = rows(["03", "05"])
    assert expected == [committed("03"), committed("05")]
    deletions = iter(range(3))

    def delete_some(uri: str) -> None:
        next(deletions)
        Path(uri).unlink()

    monkeypatch.setattr(storage, "delete_file", delete_some)
    with pytest.raises(StopIteration):  # as if killed in the middle
        ledger.CHUNKS.compact(str(tmp_path), names)
    assert len(index_of(tmp_path)) == 7 + 4
    assert rows(["03", "05"]) == expected
    monkeypatch.undo()
    ledger.CHUNKS.compact(str(tmp_path), ledger.CHUNKS.list_commits(str(tmp_path)))
    assert ledger.CHUNKS.list_commits(str(tmp_path)) == []
    index = ledger.best_rows(ledger.CHUNKS.read_index(str(tmp_path)))
    assert [{**row, "file": ""} for row in index.to_pylist()] == [{**row, "file": ""} for row in before]
    assert rows(["03", "05"]) == expected
