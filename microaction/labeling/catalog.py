"""The catalog: which videos an archive holds, and what each of them is.

archive → list (driver) → probe (CPU tasks, 1:1) → one Parquet file
"""

import functools
import time
from collections.abc import Callable
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from microaction import storage
from microaction.clips.manifest import region_of
from microaction.errors import FailureKind, UsageError
from microaction.labeling.probe import catalog_row
from microaction.schema import CATALOG, OPTIONAL_CATALOG_COLUMNS, REGION_COLUMNS, parquet_bytes
from microaction.storage import StorageError
from microaction.video.decoding.formats import VIDEO_SUFFIXES

FILES_PER_PAGE = 10_000
FILES_PER_WAVE = 100_000
MIN_PROBES_BEFORE_ABORT = 64  # a store that refuses this many files in a row will refuse all
SAVE_INTERVAL_S = 60.0
FILES_PER_TASK = 16  # a probe takes milliseconds: fewer files per task would cost more in scheduling than in work


class CatalogError(UsageError, ValueError):
    """An archive holds no videos, or a file is not a catalog."""


def make_catalog(
    archive: str,
    *,
    known: pa.Table | None = None,
    retry_failed: bool = False,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    on_part: Callable[[pa.Table], None] | None = None,
) -> pa.Table:
    """List the archive and probe every video: a table of `schema.CATALOG`, in order of name. Needs a running Ray.

    A file counts as a video by the ending of its name. Rows of `known`, an earlier catalog, are kept for files whose version
    is the same; with `retry_failed` not those of files that could not be read. `on_video(done, total)` is called as probes
    finish, and `on_part` every minute or so with the catalog so far: passed as `known`, it saves the work. Raises
    `CatalogError` if there is no video, and `StorageError` if the store refuses all of them.
    """
    listing = _listing(archive)
    keys = ["video", "version"]
    if known is not None:  # what the store refused then, it may allow now
        known = known.filter(pc.is_null(known["error"]) if retry_failed else pc.invert(_is_storage_error(known)))
    tables = [CATALOG.empty_table() if known is None else _matching(known, listing.select(keys), keys)]
    new = listing.join(tables[0].select(keys), keys, join_type="left anti")
    done = len(tables[0])
    saved_s, any_allowed = time.monotonic(), done > 0
    for first in range(0, len(new), FILES_PER_WAVE):
        wave = new.slice(first, FILES_PER_WAVE).combine_chunks()
        blocks = [wave.slice(start, FILES_PER_TASK) for start in range(0, len(wave), FILES_PER_TASK)]
        files = ray.data.from_blocks(blocks)
        files.context.enable_progress_bars = False  # the commands show their own
        probed = files.map_batches(_probe_batch, batch_size=None, batch_format="pyarrow")
        for table in probed.iter_batches(batch_size=None, batch_format="pyarrow"):
            tables.append(table)
            done += len(table)
            on_video(done, len(listing))
            any_allowed = any_allowed or not pc.all(_is_storage_error(table)).as_py()
            if not any_allowed and (done == len(listing) or done >= MIN_PROBES_BEFORE_ABORT):
                # A store may refuse some files; that it refuses all is no fact about the files.
                raise StorageError(table["reason"][0].as_py())
            if on_part is not None and time.monotonic() - saved_s > SAVE_INTERVAL_S:
                on_part(_sorted(tables))
                saved_s = time.monotonic()
    return _sorted(tables)


def _listing(archive: str) -> pa.Table:
    """Return the archive's videos, page by page into columns: video, version, size_bytes."""
    schema = pa.schema([CATALOG.field(name) for name in ("video", "version", "size_bytes")])
    files = (file for file in storage.list_files(archive) if file.uri.lower().endswith(VIDEO_SUFFIXES))
    batches = []
    try:
        while page := list(islice(files, FILES_PER_PAGE)):
            columns = zip(*((file.uri, file.version, file.size_bytes) for file in page), strict=True)
            batches.append(pa.record_batch([pa.array(column) for column in columns], schema=schema))
    except FileNotFoundError as error:
        raise CatalogError(str(error)) from error
    if not batches:
        raise CatalogError(f"no videos below {archive}: none of its files ends in {', '.join(VIDEO_SUFFIXES)}")
    return pa.Table.from_batches(batches)


def _matching(table: pa.Table, other: pa.Table, keys: list[str]) -> pa.Table:
    """Return the rows of `table` whose keys are in `other`. Joins cannot carry lists along."""
    numbered = table.select(keys).append_column("row", pa.array(range(len(table)), pa.int64()))
    return table.take(numbered.join(other, keys, join_type="inner")["row"].combine_chunks())


def _is_storage_error(catalog: pa.Table) -> pa.ChunkedArray:
    return pc.equal(pc.fill_null(catalog["error"], ""), str(FailureKind.STORAGE_ERROR))


def _sorted(tables: list[pa.Table]) -> pa.Table:
    return (
        pa.concat_tables([table.select(CATALOG.names).cast(CATALOG) for table in tables])
        .sort_by("video")
        .combine_chunks()
    )


def write_catalog(catalog: pa.Table, uri: str) -> None:
    """Write a catalog file."""
    storage.write_bytes(uri, parquet_bytes(catalog))


def read_catalog(uri: str) -> pa.Table:
    """Return the catalog in a file. Raises `CatalogError` if it is not one."""
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
        for name in OPTIONAL_CATALOG_COLUMNS:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), CATALOG.field(name).type))
        _check_regions(table)
        catalog = _sorted([table])
        _check_unique(catalog["video"].combine_chunks())
        return catalog
    except FileNotFoundError as error:
        raise CatalogError(f"{error}; `microaction catalog ARCHIVE {uri}` makes one") from error
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise CatalogError(f"{uri} is not a catalog: {error}") from error


def _check_regions(table: pa.Table) -> None:
    has_region = functools.reduce(pc.or_, (pc.is_valid(table[name]) for name in REGION_COLUMNS))
    for row in table.filter(has_region).select(["video", *REGION_COLUMNS]).to_pylist():
        try:
            region_of(row)
        except ValueError as error:
            raise ValueError(f"{row['video']}: {error}") from error


def _check_unique(videos: pa.StringArray) -> None:
    """Raise `ValueError` if a video occurs twice in a sorted list."""
    is_repeated = pc.equal(videos[1:], videos[:-1])
    if pc.any(is_repeated).as_py():
        repeated = videos[1:].filter(is_repeated)[0].as_py()
        raise ValueError(
            f"{repeated} occurs twice; a video has one row and one region: label another region into another output"
        )


def _probe_batch(files: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([catalog_row(**file) for file in files.to_pylist()], schema=CATALOG)
