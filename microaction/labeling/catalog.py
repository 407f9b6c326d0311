"""The catalog: which videos an archive holds, and what each of them is.

archive → list (driver) → probe (CPU tasks, 1:1) → one Parquet file
"""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from microaction import storage
from microaction.clips.manifest import region_of
from microaction.errors import UsageError
from microaction.schema import CATALOG, REGION_COLUMNS, parquet_bytes
from microaction.storage import StorageError
from microaction.video import DecodeError, probe
from microaction.video.formats import VIDEO_SUFFIXES
from microaction.video.sandbox import Limits, sandboxed

PROBE_LIMITS = Limits(time_s=600)  # without an index every packet is read
FILES_PER_PAGE = 10_000
FILES_PER_WAVE = 100_000
FILES_THAT_TELL = 64  # where storage hands out none of so many, it will hand out none
SAVE_EVERY_S = 60.0
FILES_PER_TASK = 16  # a probe takes milliseconds: fewer files a task would cost more in scheduling than in work


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
    """Lists the archive and probes every video: a table of `schema.CATALOG`, in order of name.

    A file counts as a video by the ending of its name. Rows of `known`, an earlier catalog, are kept for files whose
    version is the same; with `retry_failed` not those of files that could not be read. `on_video(done, total)` is called as
    probes finish, and `on_part` every minute or so with the catalog so far: given as `known`, it spares the work. Raises
    `CatalogError` where there is no video, and `StorageError` where storage hands none of them out.
    """
    listing = _listing(archive)
    keys = ["video", "version"]
    if known is not None:  # what storage did not hand out then, it may now
        known = known.filter(pc.is_null(known["error"]) if retry_failed else pc.invert(_is_withheld(known)))
    tables = [CATALOG.empty_table() if known is None else known.join(listing.select(keys), keys, join_type="inner")]
    new = listing.join(tables[0].select(keys), keys, join_type="left anti")
    done = len(tables[0])
    saved_s, is_any_given = time.monotonic(), done > 0
    for first in range(0, len(new), FILES_PER_WAVE):
        wave = new.slice(first, FILES_PER_WAVE).combine_chunks()
        blocks = [wave.slice(start, FILES_PER_TASK) for start in range(0, len(wave), FILES_PER_TASK)]
        probed = ray.data.from_blocks(blocks).map_batches(_probe_batch, batch_size=None, batch_format="pyarrow")
        for table in probed.iter_batches(batch_size=None, batch_format="pyarrow"):
            tables.append(table)
            done += len(table)
            on_video(done, len(listing))
            is_any_given = is_any_given or not pc.all(_is_withheld(table)).as_py()
            if not is_any_given and (done == len(listing) or done >= FILES_THAT_TELL):
                # Some files may be kept from us; that all of them are is no fact about the files.
                raise StorageError(table["reason"][0].as_py())
            if on_part is not None and time.monotonic() - saved_s > SAVE_EVERY_S:
                on_part(_sorted(tables))
                saved_s = time.monotonic()
    return _sorted(tables)


def _listing(archive: str) -> pa.Table:
    """The archive's videos, page by page into columns: video, version, size_bytes."""
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


def _is_withheld(catalog: pa.Table) -> pa.ChunkedArray:
    return pc.equal(pc.fill_null(catalog["error"], ""), StorageError.__name__)


def _sorted(tables: list[pa.Table]) -> pa.Table:
    return (
        pa.concat_tables([table.select(CATALOG.names).cast(CATALOG) for table in tables])
        .sort_by("video")
        .combine_chunks()
    )


def write_catalog(catalog: pa.Table, uri: str) -> None:
    storage.write_bytes(uri, parquet_bytes(catalog))


def read_catalog(uri: str) -> pa.Table:
    """Reads a catalog file. Raises `CatalogError` where it is not one."""
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
        for name in REGION_COLUMNS:
            if name not in table.column_names:  # as written before catalogs had regions, or by other hands
                table = table.append_column(name, pa.nulls(len(table), pa.int32()))
        _require_whole_regions(table)
        catalog = _sorted([table])
        _require_each_once(catalog["video"].combine_chunks())
        return catalog
    except FileNotFoundError as error:
        raise CatalogError(f"{error}; `python -m jobs.catalog ARCHIVE {uri}` makes one") from error
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise CatalogError(f"{uri} is not a catalog: {error}") from error


def _require_whole_regions(table: pa.Table) -> None:
    given = functools.reduce(pc.or_, (pc.is_valid(table[name]) for name in REGION_COLUMNS))
    for row in table.filter(given).select(["video", *REGION_COLUMNS]).to_pylist():
        try:
            region_of(row)
        except ValueError as error:
            raise ValueError(f"{row['video']}: {error}") from error


def _require_each_once(videos: pa.StringArray) -> None:
    """Raises `ValueError` where a video, of a list in order, is there twice."""
    again = pc.equal(videos[1:], videos[:-1])
    if pc.any(again).as_py():
        twice = videos[1:].filter(again)[0].as_py()
        raise ValueError(
            f"{twice} is there twice; a video has one row and one region: label another region into another output"
        )


def _probe_batch(files: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([catalog_row(**file) for file in files.to_pylist()], schema=CATALOG)


def catalog_row(video: str, version: str, size_bytes: int) -> dict[str, Any]:
    """The catalog's row of one file; never raises for what is in the file."""
    row: dict[str, Any] = {"video": video, "version": version, "size_bytes": size_bytes}
    try:
        info = sandboxed(video, PROBE_LIMITS, probe, video)
        return row | asdict(info) | {"fps": float(info.fps)}
    except DecodeError as error:
        return row | {"error": type(error).__name__, "reason": error.reason}
    except StorageError as error:
        return row | {"error": type(error).__name__, "reason": str(error)}
    except Exception as error:  # whatever a library makes of a file's bytes is a fact about that file
        return row | {"error": type(error).__name__, "reason": f"unexpected: {error}"}
