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
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from microaction import storage
from microaction.errors import InterruptedRunError
from microaction.labeling.events import Event, EventRule, find_events
from microaction.labeling.ledger import best_rows, read_rows
from microaction.schema import LEDGER_INDEX, PUBLISHED, SCHEMA_VERSION
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from microaction.video.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, Span, merge_spans, subtract_spans

TABLES_FOLDER = "tables"
PUBLISHED_FILE = "_published.json"
CURRENT_LINK = "current"
WINDOWS_PER_PART = 100_000
VIDEOS_PER_PART = 4096
WINDOWS_PER_GROUP = 16_384  # a video of some hours: one video is one or two groups of its part
PART_CPUS = 0.9


@dataclass(frozen=True)
class Provenance:
    """What made labels; in every published row."""

    model: str
    model_digest: str
    settings_digest: str


@dataclass(frozen=True)
class Reading:
    """How windows become answers: nothing of it is part of a chunk's work, so that it may change between two runs."""

    labels: tuple[str, ...]
    rule: EventRule
    abstain_below: float


@dataclass(frozen=True)
class Published:
    """Where the tables are, and totals over all videos of the catalog."""

    version: str
    num_videos: int = 0
    num_windows: int = 0
    num_abstained: int = 0
    num_events: int = 0
    num_failures: int = 0
    video_s: float = 0.0
    covered_s: float = 0.0
    failed_s: float = 0.0


class PublishError(InterruptedRunError, RuntimeError):
    """The ledger lacks chunks of the plan."""


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
    before readers see the new tables, and what it raises prevents that; `on_part(done, total)` counts videos. Needs a running
    Ray. Raises `PublishError` where a chunk is missing.
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
        totals = Published(version)
        done = 0
        for part_totals in _write_parts(out, folder, catalog, plan, chunks, runs, reading, metadata):
            totals = _sum(totals, part_totals)
            done += part_totals.num_videos
            on_part(done, len(catalog))
        before_switch()
        previous = None if record is None else record["totals"]["version"]
        record = {"content": content, "previous": previous, "totals": asdict(totals)}
        record["tables"] = {name: storage.join(folder, name) for name in PUBLISHED}
        storage.write_bytes(storage.join(out, PUBLISHED_FILE), json.dumps(record, indent=2).encode() + b"\n")
    published = Published(**record["totals"])
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
) -> Iterator["Published"]:
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
        if len(waiting) >= at_once:
            (first,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(first)
    while waiting:
        (first,), waiting = ray.wait(waiting, num_returns=1)
        yield ray.get(first)


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
) -> Published:
    """Writes one file of each table: the rows of these videos."""
    files = pc.unique(chunks["file"]).to_pylist()
    between = (videos["video"][0].as_py(), videos["video"][-1].as_py())
    rows = read_rows(out, files, chunks["chunk_id"].combine_chunks(), between)
    # The plan's order: by video and time.
    order = pc.index_in(chunks["chunk_id"], value_set=rows["chunk_id"].combine_chunks())
    rows = rows.take(order).combine_chunks()
    tables = _Tables(videos, runs, reading)
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


class _Tables:
    """The published rows of some videos, as they grow."""

    def __init__(self, videos: pa.Table, runs: tuple[Provenance, ...], reading: Reading) -> None:
        self._runs = runs
        self._reading = reading
        self._parts: dict[str, list[pa.Table]] = {name: [schema.empty_table()] for name, schema in PUBLISHED.items()}
        self._membership_KP = np.eye(len(BODY_PARTS), dtype=np.float32)[list(BODY_PART_OF)]
        self._rows: dict[str, list[dict[str, Any]]] = {"events": [], "failures": [], "videos": []}
        self.totals = Published("")

    def add(self, video: dict[str, Any], chunks: pa.Table) -> None:
        """One video and its chunks, by time."""
        source = asdict(self._runs[0]) | {
            "video_version": video["version"],
            "decoder": chunks["decoder"][0].as_py() if len(chunks) else DECODER,
        }
        starts_us_W, ends_us_W = (_flat(chunks[name]).to_numpy() for name in ("window_start_us", "window_end_us"))
        W, K = len(starts_us_W), len(self._reading.labels)
        probabilities_WK = _flat(chunks["probabilities"]).to_numpy().reshape(W, K)
        abstained_W = probabilities_WK.max(axis=1, initial=0) < self._reading.abstain_below
        if W:
            table = self._window_table(video["video"], starts_us_W, ends_us_W, probabilities_WK, abstained_W, source)
            self._parts["windows"].append(self._by_run(table, _flat(chunks["window_run"]).to_numpy()))
        events = find_events(starts_us_W, ends_us_W, probabilities_WK, self._reading.rule) if W else []
        self._rows["events"] += [self._event_row(video["video"], event) | source for event in events]
        windows = [Span(*span) for span in zip(starts_us_W.tolist(), ends_us_W.tolist(), strict=True)]
        covered = merge_spans(windows)
        failures = [{"video": video["video"], **failure, **source} for failure in _failures(video, chunks, covered)]
        self._rows["failures"] += failures
        covered_us = sum(span.end_us - span.start_us for span in covered)
        failed_s = sum(row["end_s"] - row["start_s"] for row in failures if row["end_s"] is not None)
        row = {name: video[name] for name in ("video", "duration_s", "codec", "width", "height", "fps")} | {
            "num_windows": W,
            "covered_s": covered_us / MICROSECONDS,
            "failed_s": failed_s,
            "coverage": covered_us / MICROSECONDS / video["duration_s"] if video["duration_s"] else None,
            "abstained_share": float(abstained_W.mean()) if W else None,
            "num_events": len(events),
            "events_per_minute": _per_minute(len(events), covered_us) if covered_us else None,
            **self._activity(events, covered_us),
        }
        self._rows["videos"].append(row | source)
        self.totals = _sum(
            self.totals,
            Published(
                "",
                1,
                W,
                int(abstained_W.sum()),
                len(events),
                len(failures),
                video["duration_s"] or 0.0,
                row["covered_s"],
                failed_s,
            ),
        )

    def finished(self) -> dict[str, pa.Table]:
        """The tables, in the order in which they are written."""
        for name, rows in self._rows.items():
            if name == "events":
                rows = sorted(rows, key=lambda row: (row["action_id"], row["video"], row["start_s"]))
            self._parts[name].append(pa.Table.from_pylist(rows, schema=PUBLISHED[name]))
        # One dictionary per column, so that every row group has the same.
        return {
            name: pa.concat_tables(parts).unify_dictionaries().combine_chunks() for name, parts in self._parts.items()
        }

    def _window_table(
        self,
        video: str,
        starts_us_W: np.ndarray,
        ends_us_W: np.ndarray,
        probabilities_WK: np.ndarray,
        abstained_W: np.ndarray,
        source: dict[str, str],
    ) -> pa.Table:
        W = len(starts_us_W)
        action_W = probabilities_WK.argmax(axis=1).astype(np.int32)
        body_part_W = np.array(BODY_PART_OF, np.int32)[action_W]
        columns: dict[str, Any] = {
            "video": pa.repeat(video, W),
            "start_s": starts_us_W / MICROSECONDS,
            "end_s": ends_us_W / MICROSECONDS,
            "action": pa.DictionaryArray.from_arrays(action_W, list(self._reading.labels)),
            "action_id": action_W,
            "body_part": pa.DictionaryArray.from_arrays(body_part_W, list(BODY_PARTS)),
            "body_part_id": body_part_W,
            "probability": probabilities_WK.max(axis=1),
            "abstained": abstained_W,
            "probabilities": _lists(probabilities_WK),
            "body_part_probabilities": _lists(probabilities_WK @ self._membership_KP),
        } | {name: _repeated(value, W) for name, value in source.items()}
        schema = PUBLISHED["windows"]
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)

    def _by_run(self, windows: pa.Table, run_W: np.ndarray) -> pa.Table:
        """The windows, each with the provenance of the run that labelled it."""
        if not run_W.any():
            return windows
        for name in (field.name for field in fields(Provenance)):
            values = pa.DictionaryArray.from_arrays(run_W, [getattr(run, name) for run in self._runs])
            place = windows.schema.get_field_index(name)
            windows = windows.set_column(
                place, windows.schema.field(place), values.cast(pa.string()).dictionary_encode()
            )
        return windows

    def _event_row(self, video: str, event: Event) -> dict[str, Any]:
        body_part_id = BODY_PART_OF[event.action_id]
        return {
            "video": video,
            "action": self._reading.labels[event.action_id],
            "action_id": event.action_id,
            "body_part": BODY_PARTS[body_part_id],
            "body_part_id": body_part_id,
            "start_s": event.start_us / MICROSECONDS,
            "end_s": event.end_us / MICROSECONDS,
            "probability": event.probability,
            "peak_probability": event.peak_probability,
            "num_windows": event.num_windows,
        }

    def _activity(self, events: list[Event], covered_us: int) -> dict[str, list[dict[str, Any]]]:
        by_action: dict[int, list[Event]] = {}
        by_body_part: dict[int, list[Event]] = {}
        for event in events:
            by_action.setdefault(event.action_id, []).append(event)
            by_body_part.setdefault(BODY_PART_OF[event.action_id], []).append(event)

        def activity(its_events: list[Event]) -> dict[str, Any]:
            spans = merge_spans(Span(event.start_us, event.end_us) for event in its_events)
            return {
                "num_events": len(its_events),
                "events_per_minute": _per_minute(len(its_events), covered_us),
                "total_s": sum(span.end_us - span.start_us for span in spans) / MICROSECONDS,
            }

        labels = self._reading.labels
        return {
            "actions": [
                {"action": labels[action], "body_part": BODY_PARTS[BODY_PART_OF[action]]} | activity(its_events)
                for action, its_events in sorted(by_action.items())
            ],
            "body_parts": [
                {"body_part": BODY_PARTS[part]} | activity(its_events)
                for part, its_events in sorted(by_body_part.items())
            ],
        }


def _failures(video: dict[str, Any], chunks: pa.Table, covered: list[Span]) -> Iterator[dict[str, Any]]:
    """A video's failures, as the spans that no window covers: together with the windows they make up the whole video."""
    if video["error"] is not None:
        yield {"start_s": 0.0, "end_s": video["duration_s"], "stage": "catalog", "attempts": 1} | {
            name: video[name] for name in ("error", "reason")
        }
    columns = ["chunk_start_us", "duration_us", "stage", "error", "reason", "attempts"]
    failed = chunks.select(columns).filter(pc.is_valid(chunks["error"])).to_pylist()
    if not failed:
        return
    # Windows reach past their chunk's end: a chunk that failed answers for what is missing up to the next one that did.
    starts_us = [0, *(chunk["chunk_start_us"] for chunk in failed[1:]), failed[-1]["duration_us"]]
    for chunk, (start_us, end_us) in zip(failed, pairwise(starts_us), strict=True):
        for span in subtract_spans(Span(start_us, end_us), covered):
            yield {"start_s": span.start_s, "end_s": span.end_s} | {
                name: chunk[name] for name in ("stage", "error", "reason", "attempts")
            }


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    """The items of all lists in a row."""
    return pc.list_flatten(lists).combine_chunks()


def _lists(values_WN: np.ndarray) -> pa.Array:
    W, N = values_WN.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(0, (W + 1) * N, N), pa.int32()), pa.array(values_WN.ravel()))


def _repeated(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(times, np.int32), [value])


def _per_minute(number: int, covered_us: int) -> float:
    return number / (covered_us / MICROSECONDS / 60)


def _sum(a: Published, b: Published) -> Published:
    """The totals of both, under the name of the first."""
    numbers = {
        field.name: getattr(a, field.name) + getattr(b, field.name) for field in fields(a) if field.name != "version"
    }
    return Published(a.version, **numbers)


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
