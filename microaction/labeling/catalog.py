"""The catalog: which videos an archive holds, and what each of them is.

archive → list (driver) → recognize and probe (CPU tasks, 1:0..1) → one Parquet file
"""

import functools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from microaction import storage
from microaction.clips.manifest import region_of
from microaction.errors import FailureKind, UsageError
from microaction.labeling.probe import catalog_row, claims_to_be_video, is_video
from microaction.labeling.settings import LabelSettings, PeopleSettings
from microaction.schema import CATALOG, OPTIONAL_CATALOG_COLUMNS, REGION_COLUMNS, parquet_bytes
from microaction.storage import StorageError

CATALOG_FILE = "_catalog.parquet"
PASSED_OVER_KEY = b"microaction.passed_over"
MAX_SHOWN_ENDINGS = 30
FILES_PER_PAGE = 10_000
FILES_PER_WAVE = 100_000
MIN_PROBES_BEFORE_ABORT = 64  # a store that refuses this many files in a row will refuse all
SAVE_INTERVAL_S = 60.0
FILES_PER_TASK = 16  # a probe takes milliseconds: fewer files per task would cost more in scheduling than in work


# Rows of files that are no videos, too.
PROBED = pa.schema([field.with_nullable(True) for field in CATALOG])


class CatalogError(UsageError, ValueError):
    """An archive holds no videos, or a file is not a catalog."""


@dataclass(frozen=True)
class PassedOver:
    """What a catalog leaves out: how many files that are no videos, by the suffix of their names, and what is hidden."""

    endings: dict[str, int]
    num_hidden: int

    @classmethod
    def of(cls, catalog: pa.Table) -> Self:
        """Return what a catalog left out; nothing for one that was made by hand."""
        noted = (catalog.schema.metadata or {}).get(PASSED_OVER_KEY)
        return cls({}, 0) if noted is None else cls(**json.loads(noted))

    def noted_in(self, catalog: pa.Table) -> pa.Table:
        """Return the catalog with this in its metadata."""
        return catalog.replace_schema_metadata({PASSED_OVER_KEY: json.dumps(asdict(self))})

    def __str__(self) -> str:
        """Return "12 files that are no videos (.txt 8, .jpg 3, no suffix 1), 2 hidden files and folders"."""
        ranked = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{ending or 'no suffix'} {count}" for ending, count in ranked[:MAX_SHOWN_ENDINGS]]
        shown += ["…"] if len(ranked) > MAX_SHOWN_ENDINGS else []
        num_files = sum(self.endings.values())
        parts = []
        if num_files or not self.num_hidden:
            noun = "file that is no video" if num_files == 1 else "files that are no videos"
            parts.append(f"{num_files} {noun}" + (f" ({', '.join(shown)})" if shown else ""))
        if self.num_hidden:
            noun = "hidden file or folder" if self.num_hidden == 1 else "hidden files and folders"
            parts.append(f"{self.num_hidden} {noun}")
        return ", ".join(parts)


def ending_of(name: str) -> str:
    """Return the suffix of a file's name, in lower case; empty if it has none."""
    return os.path.splitext(name)[1].lower()


def make_catalog(
    archive: str,
    *,
    known: pa.Table | None = None,
    out: str | None = None,
    retry_failed: bool = False,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    on_part: Callable[[pa.Table], None] | None = None,
) -> pa.Table:
    """List the archive and probe every video: a table of `schema.CATALOG`, in order of name. Needs a running Ray.

    A file counts as a video by the suffix of its name or by its content; `PassedOver.of(catalog)` counts the others. A video
    whose content cannot be reached, and a folder that cannot be opened, are rows with the reason. Rows of `known`, an earlier
    catalog, are kept for files whose version is the same; with `retry_failed` not those of files that could not be read.
    What the command itself wrote, below `out`, does not count. `on_video(done, total)` is called as files are probed, and
    `on_part` every minute or so with the catalog so far: passed as `known`, it saves the work. Raises `CatalogError` if there
    is no video, and `StorageError` if the store refuses all of them.
    """
    archived = storage.ArchiveListing(archive)
    endings: Counter[str] = Counter()
    own_prefix = None if out is None else storage.absolute(out) + "/"
    files = (file for file in archived if own_prefix is None or not file.uri.startswith(own_prefix))
    listing, unavailable = _listing(files, endings)
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
        dataset = ray.data.from_blocks(blocks)
        dataset.context.enable_progress_bars = False  # the commands show their own
        probed = dataset.map_batches(_probe_batch, batch_size=None, batch_format="pyarrow")
        for batch in probed.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += len(batch)
            on_video(done, len(listing))
            is_none = pc.is_null(batch["size_bytes"])
            endings.update(map(ending_of, batch.filter(is_none)["video"].to_pylist()))
            table = batch.filter(pc.invert(is_none))
            tables.append(table)
            any_allowed = any_allowed or len(table) < len(batch) or not pc.all(_is_storage_error(table)).as_py()
            if not any_allowed and (done == len(listing) or done >= MIN_PROBES_BEFORE_ABORT):
                # A store may refuse some files; that it refuses all is no fact about the files.
                raise StorageError(table["reason"][0].as_py())
            if on_part is not None and time.monotonic() - saved_s > SAVE_INTERVAL_S:
                on_part(_sorted(tables))
                saved_s = time.monotonic()
    catalog = _sorted([*tables, unavailable])
    passed_over = PassedOver(dict(endings), archived.num_hidden)
    if not len(catalog):
        raise CatalogError(f"no videos below {archive}: it holds {passed_over}")
    return passed_over.noted_in(catalog)


def _listing(files: Iterator[storage.ArchivedFile], endings: Counter[str]) -> tuple[pa.Table, pa.Table]:
    """Return the files (video, version, size_bytes), page by page into columns, and rows for those that cannot be reached.

    `endings` counts those that cannot be reached and have no name of a video.
    """
    schema = pa.schema([CATALOG.field(name) for name in ("video", "version", "size_bytes")])
    batches: list[pa.RecordBatch] = []
    unavailable: list[dict[str, Any]] = []
    try:
        while page := list(islice(files, FILES_PER_PAGE)):
            for file in page:
                if file.reason and (claims_to_be_video(file.uri) or file.uri.endswith("/")):
                    unavailable.append(_unavailable_row(file))
                elif file.reason:
                    endings[ending_of(file.uri)] += 1
            rows = [(file.uri, file.version, file.size_bytes) for file in page if not file.reason]
            columns = zip(*rows, strict=True) if rows else ([], [], [])
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            batches.append(pa.record_batch(arrays, schema=schema))
    except FileNotFoundError as error:
        raise CatalogError(str(error)) from error
    return pa.Table.from_batches(batches, schema), pa.Table.from_pylist(unavailable, schema=CATALOG)


def _unavailable_row(file: storage.ArchivedFile) -> dict[str, Any]:
    identity = {"video": file.uri, "version": file.version, "size_bytes": file.size_bytes}
    return identity | {"error": str(FailureKind.UNAVAILABLE), "reason": file.reason}


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


def catalog_of_run(
    settings: LabelSettings | PeopleSettings, on_video: Callable[[int, int], None], *, keep: bool = True
) -> pa.Table:
    """Return the catalog that a run is given, or make it of its archive; with `keep`, it is written into the run's output.

    Raises `CatalogError`.
    """
    uri = storage.join(settings.out, CATALOG_FILE)
    if settings.catalog is not None:
        catalog = read_catalog(settings.catalog)
    elif isinstance(settings, LabelSettings) and settings.relabel == "events":
        catalog = read_catalog(uri)
    else:
        catalog = make_catalog(
            settings.archive,
            known=read_catalog(uri) if storage.exists(uri) else None,
            out=settings.out,
            retry_failed=settings.retry_failed,
            on_video=on_video,
            on_part=(lambda part: write_catalog(part, uri)) if keep else None,
        )
    if keep:
        write_catalog(catalog, uri)
    return catalog


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
        catalog = PassedOver.of(table).noted_in(_sorted([table]))
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
    """Return the rows of a batch of files; those that are no videos have a name and nothing else."""
    rows = [catalog_row(**file) if is_video(file["video"]) else {"video": file["video"]} for file in files.to_pylist()]
    return pa.Table.from_pylist(rows, schema=PROBED)
