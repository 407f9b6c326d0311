"""The ledger: what an output holds already. Its pages are the committed Parquet files themselves.

There is one of labeled chunks, whole rows of `schema.COMMITTED_CHUNK`, and one of looks, `schema.COMMITTED_LOOKS`. A file
exists completely or not at all, so what is listed is done, whatever was killed when. Many small files are slow to read: they are
compacted into larger ones, which are written before the small ones are deleted. If that is interrupted, rows exist twice, which
changes nothing: of several rows of a chunk the best counts (`best_rows`).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from microaction import storage
from microaction.errors import RETRYABLE_KINDS, reason_of
from microaction.schema import COMMITTED_CHUNK, COMMITTED_LOOKS, LEDGER_INDEX, parquet_bytes

COMMITS_PER_COMPACTION = 512
MAX_INDEX_ATTEMPTS = 3
COMPACTED_PREFIX = "compacted-"
ROWS_PER_GROUP = 64  # of a compacted file: readers want the chunks of a few videos


@dataclass(frozen=True)
class Ledger:
    """The committed rows of one kind, in one folder of an output; they have a `chunk_id`, a `video`, `attempts`, an `error`."""

    folder: str
    schema: pa.Schema

    def commit(self, out: str, rows: pa.Table) -> str:
        """Add rows, all at once; return the name of the new file."""
        return self._write(out, f"{uuid.uuid4().hex}.parquet", rows)

    def list_commits(self, out: str) -> list[str]:
        """Return the names of the files that are not compacted yet."""
        return [name for name in self._list(out) if not name.startswith(COMPACTED_PREFIX)]

    def compact(self, out: str, names: Sequence[str]) -> None:
        """Replace small files by one that holds all their rows."""
        if names:
            rows = self._open(out, names).to_table()
            self._write(
                out,
                f"{COMPACTED_PREFIX}{uuid.uuid4().hex}.parquet",
                rows.sort_by([("video", "ascending"), ("chunk_start_us", "ascending")]),
            )
            for name in names:
                storage.delete_file(storage.join(out, self.folder, name))

    def read_index(self, out: str) -> pa.Table:
        """Return a row of `index_schema` for every committed row."""
        for _ in range(MAX_INDEX_ATTEMPTS - 1):
            try:
                return self._read_index(out)
            except FileNotFoundError:  # listed, then compacted by a task that outlived its run
                continue
        return self._read_index(out)

    @property
    def index_schema(self) -> pa.Schema:
        """The columns of `schema.LEDGER_INDEX` that these rows have, and the file."""
        return pa.schema([field for field in LEDGER_INDEX if field.name in {*self.schema.names, "file"}])

    def read_rows(self, out: str, files: Sequence[str], chunk_ids: pa.Array, videos: tuple[str, str]) -> pa.Table:
        """Return the best committed row of each chunk, from files that the index names.

        `videos` are the first and the last of the chunks' videos by name: of each file only row groups between them are read.
        """
        if len(chunk_ids) == 0:
            return self.schema.empty_table()
        video = pads.field("video")
        between = (video >= videos[0]) & (video <= videos[1])
        return best_rows(self._open(out, files).to_table(filter=between & pads.field("chunk_id").isin(chunk_ids)))

    def _read_index(self, out: str) -> pa.Table:
        schema = self.index_schema
        names = self._list(out)
        if not names:
            return schema.empty_table()
        parts = []
        for tagged in self._open(out, names).scanner(columns=schema.names[:-1]).scan_batches():
            rows = tagged.record_batch
            name = tagged.fragment.path.rsplit("/", 1)[-1]
            parts.append(pa.Table.from_batches([rows]).append_column("file", pa.repeat(name, len(rows))))
        return pa.concat_tables(parts).cast(schema)

    def _list(self, out: str) -> list[str]:
        try:
            files = storage.list_files(storage.join(out, self.folder))
            return [name for file in files if (name := file.uri.rsplit("/", 1)[-1]).endswith(".parquet")]
        except FileNotFoundError:
            return []

    def _open(self, out: str, names: Sequence[str]) -> pads.Dataset:
        filesystem, path = storage.open_filesystem(storage.join(out, self.folder))
        files = [f"{path}/{name}" for name in names]
        return pads.dataset(files, schema=self.schema, format="parquet", filesystem=filesystem)

    def _write(self, out: str, name: str, rows: pa.Table) -> str:
        content = parquet_bytes(rows.cast(self.schema), row_group_size=ROWS_PER_GROUP, compression="zstd")
        storage.write_bytes(storage.join(out, self.folder, name), content)
        return name


CHUNKS = Ledger("_chunks", COMMITTED_CHUNK)
LOOKS = Ledger("_looks", COMMITTED_LOOKS)


@dataclass(frozen=True)
class Committer:
    """The commit stage: writes a block of labeled chunks to the ledger and passes on only what progress needs.

    There, `num_windows` counts those labeled now, and `file` is empty where the ledger could not be written, for the reason in
    `error`: an exception would be treated as that of one block.
    """

    out: str

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Commit a block of rows of `schema.COMMITTED_CHUNK`."""
        error = rows["error"]
        try:
            name = CHUNKS.commit(self.out, rows)
        except Exception as failure:
            name, error = "", pa.repeat(reason_of(failure), len(rows))
        runs_CW = rows["window_run"].to_pylist()
        columns = {name: rows[name] for name in ("chunk_id", "chunk_start_us", "chunk_end_us")}
        columns["num_windows"] = pa.array([run_W.count(0) for run_W in runs_CW], pa.int32())
        return pa.table(columns | {"error": error, "file": pa.repeat(name, len(rows))})


def best_rows(rows: pa.Table) -> pa.Table:
    """Return one row per chunk: a success, or else the failure with the most windows, or else the last one."""
    if len(rows) == 0:
        return rows
    merits = {"chunk_id": rows["chunk_id"], "failed": pc.is_valid(rows["error"])}
    order = [("chunk_id", "ascending"), ("failed", "ascending")]
    for name in ("num_windows", "attempts"):
        if name in rows.column_names:
            merits[name] = rows[name]
            order.append((name, "descending"))
    ranked = pa.table(merits | {"row": pa.array(np.arange(len(rows)))}).sort_by(order)
    ids = ranked["chunk_id"].combine_chunks()
    is_first = np.append(True, pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))
    return rows.take(ranked["row"].filter(pa.array(is_first)))


def subtract_committed(plan: pa.Table, index: pa.Table, *, retry_failed: bool) -> pa.Table:
    """Return the part of the plan that is still to do, with attempts counted: chunks without a row, those that failed for
    transient reasons, and with `retry_failed` all that failed."""
    best = best_rows(index)
    again = pc.is_valid(best["error"]) if retry_failed else is_retryable(best)
    done = best.filter(pc.invert(again))
    todo = plan.filter(pc.invert(pc.is_in(plan["chunk_id"], value_set=done["chunk_id"].combine_chunks())))
    if len(todo) == 0 or len(index) == 0:
        return todo
    attempted = index.group_by("chunk_id").aggregate([("attempts", "max")])
    found = pc.index_in(todo["chunk_id"], value_set=attempted["chunk_id"].combine_chunks())
    attempts = pc.add(pc.fill_null(attempted["attempts_max"].take(found), 0), 1).cast(pa.int32())
    return todo.set_column(todo.schema.get_field_index("attempts"), todo.schema.field("attempts"), attempts)


def is_retryable(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows failed for transient reasons: the next run retries them."""
    return pc.is_in(rows["error"], value_set=pa.array([str(kind) for kind in RETRYABLE_KINDS]))


def subtract_attempted(todo: pa.Table, index: pa.Table) -> pa.Table:
    """Return the part of `todo` whose present attempt has left no row in the ledger, neither of success nor of failure."""
    value_set = _attempt_keys(index).combine_chunks()
    return todo.filter(pc.invert(pc.is_in(_attempt_keys(todo), value_set=value_set)))


def _attempt_keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows["chunk_id"], rows["attempts"].cast(pa.string()), "/")
