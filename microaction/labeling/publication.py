"""Publishing: from the ledger's chunks to the tables that people query. Every planned chunk counts exactly once.

plan + ledger's index → parts (some videos each) → tasks, a file of each table per part → one step makes them visible

A publication is a folder `<out>/tables/<version>/` that never changes once `<out>/_publication.json` names it. Locally
`<out>/windows` and so on are links to the present one. The previous one stays, for readers that are still using it.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from microaction import storage
from microaction.distributed.waiting import pop_first_done
from microaction.errors import TransientError
from microaction.labeling.ledger import CHUNKS, best_rows
from microaction.labeling.published import PUBLICATION_FILE, TABLES_FOLDER, read_publication
from microaction.labeling.tables import PLEASE_REPORT, AccountingError, DecisionRule, Provenance, Tables, Totals
from microaction.schema import LEDGER_INDEX, PUBLIC_TABLES, SCHEMA_VERSION
from microaction.video.windows import MICROSECONDS

if TYPE_CHECKING:
    from microaction.models.detector import DetectionHead

CURRENT_LINK = "current"
WINDOWS_PER_PART = 100_000
VIDEOS_PER_PART = 4096
WINDOWS_PER_GROUP = 16_384  # a video of some hours: one video is one or two row groups of its part
PART_CPUS = 0.9
PART_LIMIT_S = 1800.0  # it takes seconds
PART_RETRIES = 3
WRITING = "writing a part of the tables"


class IncompleteLedgerError(TransientError, RuntimeError):
    """The ledger lacks chunks of the plan."""


@dataclass(frozen=True)
class PublicationSource:
    """All that the tables of a run are a function of, besides the ledger.

    `runs` are those that labeled the windows, this one first; rows that are not windows have this one's provenance.
    `people` are those of its videos (`schema.VIDEO_PEOPLE`), if people were labeled. `metadata` goes into every file.
    `head`: the rest of the detector, if one labels (`DetectionHead.to_bytes`).
    """

    out: str
    catalog: pa.Table
    plan: pa.Table
    runs: tuple[Provenance, ...]
    rule: DecisionRule
    metadata: dict[str, str]
    people: pa.Table | None = None
    head: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Publication(Totals):
    """The version that readers see, and totals over all videos of the catalog."""

    version: str


def publish(
    source: PublicationSource,
    index: pa.Table,
    *,
    before_switch: Callable[[], None] = lambda: None,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> Publication:
    """Make windows/, activity/, events/, people/, videos/ and failures/ of all chunks of the plan what readers see.

    Of a chunk with several attempts the best row of the ledger's `index` counts (`ledger.best_rows`). Nothing is written if the
    present tables already say the same. `before_switch` is called right before readers see the new tables, and again before
    the old ones are deleted; what it raises prevents that. `on_part(done, total)` counts videos. Needs a running Ray. Raises
    `IncompleteLedgerError` if a chunk is missing, and `AccountingError` if windows and failures are not exactly the videos.
    """
    out, catalog = source.out, source.catalog
    chunks = _planned_rows(source, index)
    content = _digest(source, chunks)
    record = read_publication(out)
    if record is None or record["content"] != content:
        version = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        folder = storage.join(out, TABLES_FOLDER, version)
        totals = Totals()
        for part_totals in _write_parts(source, folder, chunks):
            totals += part_totals
            on_part(totals.num_videos, len(catalog))
        _check_account(totals)
        before_switch()
        previous = None if record is None else record["totals"]["version"]
        record = {"content": content, "previous": previous, "totals": asdict(totals) | {"version": version}}
        record["tables"] = {name: storage.join(folder, name) for name in PUBLIC_TABLES}
        storage.write_bytes(storage.join(out, PUBLICATION_FILE), json.dumps(record, indent=2).encode() + b"\n")
    publication = Publication(**record["totals"])
    before_switch()  # the switch may have taken long: what another process has published since must not be deleted
    _link(out, publication.version)
    _delete_others(out, {publication.version, record["previous"]})
    return publication


def _planned_rows(source: PublicationSource, index: pa.Table) -> pa.Table:
    """Return the index row of each chunk of the plan, in the plan's order."""
    best = best_rows(index)
    found = pc.index_in(source.plan["chunk_id"], value_set=best["chunk_id"].combine_chunks())
    if found.null_count:
        raise IncompleteLedgerError(
            f"{found.null_count} chunks are missing in {source.out}: run the same command again"
        )
    return best.take(found)


def _check_account(totals: Totals) -> None:
    """Seconds of video in are seconds covered by windows and seconds in failures/, to a microsecond per video."""
    unaccounted_s = totals.video_s - totals.covered_s - totals.failed_s
    if abs(unaccounted_s) > totals.num_videos / MICROSECONDS:
        raise AccountingError(f"{unaccounted_s:.6f} s of video are neither labeled nor in failures/{PLEASE_REPORT}")


def _digest(source: PublicationSource, chunks: pa.Table) -> str:
    """Return the digest of all that decides what the tables say."""
    described = [[asdict(run) for run in source.runs], source.rule.described, source.metadata, SCHEMA_VERSION]
    digest = hashlib.sha256(json.dumps(described).encode())
    people = [] if source.people is None else [source.people]
    for table in (source.catalog, chunks.select([name for name in LEDGER_INDEX.names if name != "file"]), *people):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """Some videos of a publication, and what a task needs to write one file of each table for them."""

    out: str
    folder: str
    name: str
    videos: pa.Table
    first_video_row: int
    chunks: pa.Table  # chunk_id, file, video_row
    runs: tuple[Provenance, ...]
    rule: DecisionRule
    metadata: dict[str, str]
    people: pa.Table | None


def _write_parts(source: PublicationSource, folder: str, chunks: pa.Table) -> Iterator[Totals]:
    """Run a task per part, a few at a time; yield each one's totals."""
    write = ray.remote(num_cpus=PART_CPUS, max_retries=PART_RETRIES)(_write_part)
    head = ray.put(source.head)  # once, for all parts
    waiting: list[ray.ObjectRef] = []
    max_waiting = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    for part in _parts(source, folder, chunks):
        waiting.append(write.remote(part, head))
        while len(waiting) >= max_waiting:
            yield pop_first_done(waiting, PART_LIMIT_S, WRITING)
    while waiting:
        yield pop_first_done(waiting, PART_LIMIT_S, WRITING)


def _parts(source: PublicationSource, folder: str, chunks: pa.Table) -> Iterator[_Part]:
    version = folder.rsplit("/", 1)[-1]
    video_row_C, num_windows_C = source.plan["video_row"].to_numpy(), chunks["num_windows"].to_numpy()
    for number, (videos, rows) in enumerate(_split(video_row_C, num_windows_C, len(source.catalog))):
        part = chunks.slice(rows.start, len(rows))
        table = pa.table(
            {
                "chunk_id": part["chunk_id"],
                "file": part["file"],
                "video_row": source.plan["video_row"].slice(rows.start, len(rows)),
            }
        )
        some = source.catalog.slice(videos.start, len(videos))
        people = source.people
        if people is not None:
            people = people.filter(pc.is_in(people["video"], value_set=some["video"].combine_chunks()))
        # Names are never used again: a reader that lists one publication and opens another finds nothing, not a mixture.
        yield _Part(
            source.out,
            folder,
            f"{version}-{number:05d}",
            some,
            videos.start,
            table,
            source.runs,
            source.rule,
            source.metadata,
            people,
        )


def _split(video_row_C: np.ndarray, num_windows_C: np.ndarray, num_videos: int) -> Iterator[tuple[range, range]]:
    """Cut the catalog into parts: (videos, chunks of them), as ranges of rows."""
    windows_V = np.bincount(video_row_C, weights=num_windows_C, minlength=num_videos)
    first_chunk_V = np.searchsorted(video_row_C, np.arange(num_videos + 1))
    start, num_windows = 0, 0.0
    for video, its_windows in enumerate(windows_V.tolist()):
        if video > start and (num_windows + its_windows > WINDOWS_PER_PART or video - start >= VIDEOS_PER_PART):
            yield range(start, video), range(first_chunk_V[start], first_chunk_V[video])
            start, num_windows = video, 0.0
        num_windows += its_windows
    yield range(start, num_videos), range(first_chunk_V[start], first_chunk_V[num_videos])


def _write_part(part: _Part, head: bytes | None) -> Totals:
    """Write one file of each table: the rows of these videos."""
    tables = Tables(part.runs, part.rule, _head_of(head))
    people = {} if part.people is None else {row["video"]: row for row in part.people.to_pylist()}
    for video, rows in _rows_by_video(part):
        tables.add(video, rows, people.get(video["video"]))
    for table, content in tables.finished().items():
        sink = pa.BufferOutputStream()
        schema = content.schema.with_metadata(part.metadata)
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for group in _row_groups(table, content.cast(schema)):
                writer.write_table(group, row_group_size=WINDOWS_PER_GROUP)
        uri = storage.join(part.folder, table, f"{part.name}.parquet")
        storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return tables.totals


def _head_of(head: bytes | None) -> "DetectionHead | None":
    if head is None:
        return None
    from microaction.labeling.detections import head_of

    return head_of(head)


def _rows_by_video(part: _Part) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Yield each video's row of the catalog and its committed chunks, by time."""
    files = pc.unique(part.chunks["file"]).to_pylist()
    between = (part.videos["video"][0].as_py(), part.videos["video"][-1].as_py())
    rows = CHUNKS.read_rows(part.out, files, part.chunks["chunk_id"].combine_chunks(), between)
    # The plan's order: by video and time.
    order = pc.index_in(part.chunks["chunk_id"], value_set=rows["chunk_id"].combine_chunks())
    rows = rows.take(order).combine_chunks()
    video_rows = part.first_video_row + np.arange(len(part.videos) + 1)
    bounds_V = np.searchsorted(part.chunks["video_row"].to_numpy(), video_rows)
    for video, (first, last) in zip(part.videos.to_pylist(), pairwise(bounds_V.tolist()), strict=True):
        yield video, rows.slice(first, last - first)


def _row_groups(table: str, content: pa.Table) -> Iterator[pa.Table]:
    """Yield what a reader may want alone as row groups: the events of an action, the windows of a few videos."""
    if table != "events" or len(content) == 0:
        yield content
        return
    actions = content["action_id"].to_numpy()
    borders = [0, *(np.flatnonzero(np.diff(actions)) + 1).tolist(), len(actions)]
    for first, last in pairwise(borders):
        yield content.slice(first, last - first)


def _link(out: str, version: str) -> None:
    """Point the names that people use to the present tables, in local folders."""
    if storage.is_remote(out):
        return
    storage.replace_symlink(storage.join(out, TABLES_FOLDER, CURRENT_LINK), version)
    for name in PUBLIC_TABLES:
        storage.replace_symlink(storage.join(out, name), f"{TABLES_FOLDER}/{CURRENT_LINK}/{name}")


def _delete_others(out: str, versions: set[str | None]) -> None:
    for version in storage.list_folders(storage.join(out, TABLES_FOLDER)):
        if version not in versions and version != CURRENT_LINK:
            storage.delete_tree(storage.join(out, TABLES_FOLDER, version))
