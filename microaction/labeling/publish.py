"""Publishing: from the ledger's chunks to the tables that people query. Every planned chunk counts exactly once.

plan + ledger's index → parts (some videos each) → tasks, a file of each table per part → one step makes them visible

A publication is a folder `<out>/tables/<version>/` that never changes once it is named in `<out>/_published.json`. Locally
`<out>/windows` and so on are links that lead to the present one. The one before stays, for who reads it just then.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from microaction import storage
from microaction.labeling.ledger import best_rows, read_rows
from microaction.labeling.tables import THIS_IS_A_BUG, Provenance, PublishError, Reading, Tables, Totals
from microaction.machines import result_of
from microaction.schema import LEDGER_INDEX, PUBLISHED, SCHEMA_VERSION
from microaction.video.windows import MICROSECONDS

TABLES_FOLDER = "tables"
PUBLISHED_FILE = "_published.json"
CURRENT_LINK = "current"
WINDOWS_PER_PART = 100_000
VIDEOS_PER_PART = 4096
WINDOWS_PER_GROUP = 16_384  # a video of some hours: one video is one or two groups of its part
PART_CPUS = 0.9
PART_LIMIT_S = 1800.0  # it takes seconds


@dataclass(frozen=True, kw_only=True)
class Published(Totals):
    """Which publication readers see, and totals over all videos of the catalog."""

    version: str


def publish(
    out: str,
    catalog: pa.Table,
    plan: pa.Table,
    index: pa.Table,
    runs: tuple[Provenance, ...],
    reading: Reading,
    *,
    metadata: dict[str, str],
    before_switch: Callable[[], None] = lambda: None,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> Published:
    """Makes windows/, events/, videos/ and failures/ of all chunks of the plan what readers see.

    `runs` are those that labelled the windows, this one first; what is no window has this one's provenance. Of a chunk that
    was tried several times the best row of the ledger's `index` counts (`ledger.best_rows`). Nothing is
    written where the present tables say the same already. `metadata` goes into every file; `before_switch` is called last
    before readers see the new tables, and again before the old ones go, and what it raises prevents that;
    `on_part(done, total)` counts videos. Needs a running Ray. Raises `PublishError` where a chunk is missing, or windows and
    failures are not all of the videos, or more.
    """
    best = best_rows(index)
    places = pc.index_in(plan["chunk_id"], value_set=best["chunk_id"].combine_chunks())
    if places.null_count:
        raise PublishError(f"{places.null_count} chunks are missing in {out}; run the same command again")
    chunks = best.take(places)
    content = _digest(catalog, chunks, runs, reading, metadata)
    record = read_published(out)
    if record is None or record["content"] != content:
        version = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        folder = storage.join(out, TABLES_FOLDER, version)
        totals = Totals()
        for part_totals in _write_parts(out, folder, catalog, plan, chunks, runs, reading, metadata):
            totals += part_totals
            on_part(totals.num_videos, len(catalog))
        _require_account(totals)
        before_switch()
        previous = None if record is None else record["totals"]["version"]
        record = {"content": content, "previous": previous, "totals": asdict(totals) | {"version": version}}
        record["tables"] = {name: storage.join(folder, name) for name in PUBLISHED}
        storage.write_bytes(storage.join(out, PUBLISHED_FILE), json.dumps(record, indent=2).encode() + b"\n")
    published = Published(**record["totals"])
    before_switch()  # the switch may have taken its time: what another has published since must not be deleted
    _link(out, published.version)
    _delete_others(out, {published.version, record["previous"]})
    return published


def read_published(out: str) -> dict[str, Any] | None:
    """What `_published.json` says: `tables` has each table's folder. None before the first publication."""
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(storage.join(out, PUBLISHED_FILE)))
    except FileNotFoundError:
        return None
    return record


def _require_account(totals: Totals) -> None:
    """Seconds of video in are seconds covered by windows and seconds in failures/, to a microsecond a video."""
    unaccounted_s = totals.video_s - totals.covered_s - totals.failed_s
    if abs(unaccounted_s) > totals.num_videos / MICROSECONDS:
        raise PublishError(f"{unaccounted_s:.6f} s of video are neither labelled nor in failures/{THIS_IS_A_BUG}")


def _digest(
    catalog: pa.Table, chunks: pa.Table, runs: tuple[Provenance, ...], reading: Reading, metadata: dict[str, str]
) -> str:
    """Of all that decides what the tables say."""
    digest = hashlib.sha256(
        json.dumps([[asdict(run) for run in runs], asdict(reading), metadata, SCHEMA_VERSION]).encode()
    )
    for table in (catalog, chunks.select([name for name in LEDGER_INDEX.names if name != "file"])):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


def _write_parts(
    out: str,
    folder: str,
    catalog: pa.Table,
    plan: pa.Table,
    chunks: pa.Table,
    runs: tuple[Provenance, ...],
    reading: Reading,
    metadata: dict[str, str],
) -> Iterator[Totals]:
    """Runs a task per part, a few at a time; yields each one's totals."""
    write = ray.remote(num_cpus=PART_CPUS, max_retries=3)(_write_part)
    version = folder.rsplit("/", 1)[-1]
    waiting: list[ray.ObjectRef] = []
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    for number, (videos, rows) in enumerate(
        _parts(plan["video_row"].to_numpy(), chunks["num_windows"].to_numpy(), len(catalog))
    ):
        part = chunks.slice(rows.start, len(rows))
        table = pa.table(
            {
                "chunk_id": part["chunk_id"],
                "file": part["file"],
                "video_row": plan["video_row"].slice(rows.start, len(rows)),
            }
        )
        arguments = (
            out,
            folder,
            f"{version}-{number:05d}",
            catalog.slice(videos.start, len(videos)),
            videos.start,
            table,
        )
        waiting.append(write.remote(*arguments, runs, reading, metadata))
        while len(waiting) >= at_once:
            yield _first_of(waiting)
    while waiting:
        yield _first_of(waiting)


def _first_of(waiting: list[ray.ObjectRef]) -> Totals:
    """The result of the part that ends first, which is no longer waited for."""
    ready, _ = ray.wait(waiting, num_returns=1, timeout=PART_LIMIT_S)
    first = ready[0] if ready else waiting[0]
    waiting.remove(first)
    totals: Totals = result_of(first, 0, f"writing a part of the tables, for which {PART_LIMIT_S:g} s are plenty,")
    return totals


def _parts(video_row_C: np.ndarray, num_windows_C: np.ndarray, num_videos: int) -> Iterator[tuple[range, range]]:
    """Cuts the catalog into parts: (videos, chunks of them), as ranges of rows."""
    windows_V = np.bincount(video_row_C, weights=num_windows_C, minlength=num_videos)
    first_chunk_V = np.searchsorted(video_row_C, np.arange(num_videos + 1))
    start, num_windows = 0, 0.0
    for video, its_windows in enumerate(windows_V.tolist()):
        if video > start and (num_windows + its_windows > WINDOWS_PER_PART or video - start >= VIDEOS_PER_PART):
            yield range(start, video), range(first_chunk_V[start], first_chunk_V[video])
            start, num_windows = video, 0.0
        num_windows += its_windows
    yield range(start, num_videos), range(first_chunk_V[start], first_chunk_V[num_videos])


def _write_part(
    out: str,
    folder: str,
    name: str,
    videos: pa.Table,
    first_video_row: int,
    chunks: pa.Table,
    runs: tuple[Provenance, ...],
    reading: Reading,
    metadata: dict[str, str],
) -> Totals:
    """Writes one file of each table: the rows of these videos."""
    files = pc.unique(chunks["file"]).to_pylist()
    between = (videos["video"][0].as_py(), videos["video"][-1].as_py())
    rows = read_rows(out, files, chunks["chunk_id"].combine_chunks(), between)
    # The plan's order: by video and time.
    order = pc.index_in(chunks["chunk_id"], value_set=rows["chunk_id"].combine_chunks())
    rows = rows.take(order).combine_chunks()
    tables = Tables(videos, runs, reading)
    bounds_V = np.searchsorted(chunks["video_row"].to_numpy(), first_video_row + np.arange(len(videos) + 1))
    for video, (first, last) in zip(videos.to_pylist(), pairwise(bounds_V.tolist()), strict=True):
        tables.add(video, rows.slice(first, last - first))
    for table, content in tables.finished().items():
        sink = pa.BufferOutputStream()
        schema = content.schema.with_metadata(metadata)
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for group in _groups(table, content.cast(schema)):
                writer.write_table(group, row_group_size=WINDOWS_PER_GROUP)
        # Names are never used again: who lists one publication and opens another finds nothing rather than a mixture.
        storage.write_bytes(storage.join(folder, table, f"{name}.parquet"), sink.getvalue().to_pybytes())
    return tables.totals


def _groups(table: str, content: pa.Table) -> Iterator[pa.Table]:
    """What a reader may want by itself, as row groups: the events of an action, the windows of a few videos."""
    if table != "events" or len(content) == 0:
        yield content
        return
    actions = content["action_id"].to_numpy()
    borders = [0, *(np.flatnonzero(np.diff(actions)) + 1).tolist(), len(actions)]
    for first, last in pairwise(borders):
        yield content.slice(first, last - first)


def _link(out: str, version: str) -> None:
    """On local folders, leads the names that people use to the present tables."""
    if storage.is_remote(out):
        return
    storage.point(storage.join(out, TABLES_FOLDER, CURRENT_LINK), version)
    for name in PUBLISHED:
        storage.point(storage.join(out, name), f"{TABLES_FOLDER}/{CURRENT_LINK}/{name}")


def _delete_others(out: str, versions: set[str | None]) -> None:
    for version in storage.list_folders(storage.join(out, TABLES_FOLDER)):
        if version not in versions and version != CURRENT_LINK:
            storage.delete_tree(storage.join(out, TABLES_FOLDER, version))
