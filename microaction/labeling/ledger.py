"""The ledger: which chunks an output holds already. Its pages are the committed Parquet files themselves.

`<out>/_chunks/<id>.parquet` holds whole rows of `schema.COMMITTED_CHUNK`; a file is there wholly or not at all, so what is
listed is done, whatever was killed when.
"""

import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from microaction import storage
from microaction.schema import COMMITTED_CHUNK

CHUNKS_FOLDER = "_chunks"


def commit(out: str, rows: pa.Table) -> None:
    """Adds rows to the ledger, all at once."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(COMMITTED_CHUNK), sink)
    uri = storage.join(out, CHUNKS_FOLDER, f"{uuid.uuid4().hex}.parquet")
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def open_ledger(out: str) -> pads.Dataset:
    """All committed rows; a chunk that was tried again has several."""
    filesystem, path = storage.open_filesystem(storage.join(out, CHUNKS_FOLDER))
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    files = sorted(info.path for info in infos if info.path.endswith(".parquet"))
    if not files:
        return pads.dataset(COMMITTED_CHUNK.empty_table())
    return pads.dataset(files, schema=COMMITTED_CHUNK, format="parquet", filesystem=filesystem)


def subtract_committed(plan: pa.Table, out: str, *, retry_failed: bool) -> pa.Table:
    """The part of the plan that is still to do. With `retry_failed`, chunks that failed are to do again, tries counted."""
    committed = open_ledger(out).to_table(columns=["chunk_id", "attempts", "error"])
    done = committed.filter(pc.is_null(committed["error"])) if retry_failed else committed
    todo = plan.filter(pc.invert(pc.is_in(plan["chunk_id"], value_set=done["chunk_id"].combine_chunks())))
    if not retry_failed or len(todo) == 0:
        return todo
    tried: dict[str, int] = {}
    for row in committed.select(["chunk_id", "attempts"]).to_pylist():
        tried[row["chunk_id"]] = max(tried.get(row["chunk_id"], 0), row["attempts"])
    attempts = pa.array([tried.get(chunk, 0) + 1 for chunk in todo["chunk_id"].to_pylist()], pa.int32())
    return todo.set_column(todo.schema.get_field_index("attempts"), todo.schema.field("attempts"), attempts)


def subtract_tried(todo: pa.Table, out: str) -> pa.Table:
    """The part of `todo` whose present attempt has left no row in the ledger, neither of success nor of failure."""
    rows = open_ledger(out).to_table(columns=["chunk_id", "attempts"]).to_pylist()
    tried = {(row["chunk_id"], row["attempts"]) for row in rows}
    left = [
        (row["chunk_id"], row["attempts"]) not in tried for row in todo.select(["chunk_id", "attempts"]).to_pylist()
    ]
    return todo.filter(pa.array(left, pa.bool_()))
