"""Publishing: from the ledger's chunks to the tables that people query. Every planned chunk counts exactly once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from microaction import storage
from microaction.labeling.events import merge_windows
from microaction.labeling.ledger import open_ledger
from microaction.schema import PUBLISHED
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from microaction.video.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, Span, merge_spans, subtract_spans

VIDEOS_PER_PASS = 256  # bounds the memory of publishing: only these videos' windows are held at once
STAGING_FOLDER = "_staging"


@dataclass(frozen=True)
class Provenance:
    """What made the labels; repeated in every published row."""

    model: str
    model_digest: str
    settings_digest: str


@dataclass(frozen=True)
class Published:
    """Totals of what was published, over all videos of the catalog."""

    num_videos: int = 0
    num_windows: int = 0
    num_events: int = 0
    num_failures: int = 0
    video_s: float = 0.0
    covered_s: float = 0.0
    failed_s: float = 0.0


def publish(
    out: str, catalog: pa.Table, plan: pa.Table, provenance: Provenance, labels: tuple[str, ...], min_probability: float
) -> Published:
    """Writes windows/, events/, videos/ and failures/ of all committed chunks of the plan, in place of older ones.

    Of a chunk that was tried several times, a success counts, or else the failure with the most windows. Chunks that the
    ledger lacks are not published; the caller sees to it that there are none.
    """
    staging = storage.join(out, STAGING_FOLDER)
    storage.delete_tree(staging)
    writers = {name: _TableWriter(storage.join(staging, name), schema) for name, schema in PUBLISHED.items()}
    totals = Published()
    ledger = open_ledger(out)
    planned = set(plan["chunk_id"].to_pylist())
    for start in range(0, len(catalog), VIDEOS_PER_PASS):
        videos = catalog.slice(start, VIDEOS_PER_PASS)
        chunks_of = _chunks_by_video(ledger, videos["video"], planned)
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in PUBLISHED}
        for video in videos.to_pylist():
            rows = _publish_video(video, chunks_of.get(video["video"], []), provenance, labels, min_probability)
            totals = _add(totals, rows)
            for name in PUBLISHED:
                tables[name] += rows[name]
        for name, writer in writers.items():
            writer.write(tables[name])
    for name, writer in writers.items():
        writer.close()
        storage.replace_tree(storage.join(staging, name), storage.join(out, name))
    storage.delete_tree(staging)
    return totals


class _TableWriter:
    """Writes one Parquet file of a table; the file is there even if no row comes, so that readers find its columns."""

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        filesystem, path = storage.open_filesystem(folder)
        filesystem.create_dir(path, recursive=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(f"{path}/part-0.parquet", schema, filesystem=filesystem, compression="zstd")

    def write(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _chunks_by_video(
    ledger: pads.Dataset, videos: pa.ChunkedArray, planned: set[str]
) -> dict[str, list[dict[str, Any]]]:
    rows = ledger.to_table(filter=pads.field("video").isin(videos.combine_chunks())).to_pylist()
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["chunk_id"] in planned:
            known = best.get(row["chunk_id"])
            if known is None or _merit(row) > _merit(known):
                best[row["chunk_id"]] = row
    by_video: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(best.values(), key=lambda row: row["chunk_start_us"]):
        by_video.setdefault(row["video"], []).append(row)
    return by_video


def _merit(row: dict[str, Any]) -> tuple[bool, int, int]:
    return row["error"] is None, len(row["window_start_us"]), row["attempts"]


def _publish_video(
    video: dict[str, Any],
    chunks: list[dict[str, Any]],
    provenance: Provenance,
    labels: tuple[str, ...],
    min_probability: float,
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table for one video; `chunks` ascend in time."""
    source = {
        "video_version": video["version"],
        "model": provenance.model,
        "model_digest": provenance.model_digest,
        "settings_digest": provenance.settings_digest,
        "decoder": chunks[0]["decoder"] if chunks else DECODER,
    }
    windows = [
        Span(*span) for chunk in chunks for span in zip(chunk["window_start_us"], chunk["window_end_us"], strict=True)
    ]
    probabilities_WK = np.array([row for chunk in chunks for row in chunk["probabilities"]], np.float32).reshape(
        len(windows), len(labels)
    )
    window_rows = [
        {
            "video": video["video"],
            "start_s": window.start_s,
            "end_s": window.end_s,
            **_action(int(probabilities_K.argmax()), labels),
            "probability": probabilities_K.max(),
            "probabilities": probabilities_K,
            **source,
        }
        for window, probabilities_K in zip(windows, probabilities_WK, strict=True)
    ]
    event_rows = [
        {
            "video": video["video"],
            **_action(event.action_id, labels),
            "start_s": event.start_us / MICROSECONDS,
            "end_s": event.end_us / MICROSECONDS,
            "probability": event.probability,
            "num_windows": event.num_windows,
            **source,
        }
        for event in (merge_windows(windows, probabilities_WK, min_probability) if windows else [])
    ]
    covered = merge_spans(windows)
    failure_rows = [{"video": video["video"], **failure, **source} for failure in _failures(video, chunks, covered)]
    video_row = {
        **{name: video[name] for name in ("video", "duration_s", "codec", "width", "height", "fps")},
        "num_windows": len(windows),
        "covered_s": sum(span.end_us - span.start_us for span in covered) / MICROSECONDS,
        "failed_s": sum(row["end_s"] - row["start_s"] for row in failure_rows if row["end_s"] is not None),
        "num_events": len(event_rows),
        **source,
    }
    return {"windows": window_rows, "events": event_rows, "failures": failure_rows, "videos": [video_row]}


def _failures(video: dict[str, Any], chunks: list[dict[str, Any]], covered: list[Span]) -> Iterator[dict[str, Any]]:
    """A video's failures, as the spans that no window covers: together with the windows they make up the whole video."""
    if video["error"] is not None:
        yield {"start_s": 0.0, "end_s": video["duration_s"], "stage": "catalog", "attempts": 1} | {
            name: video[name] for name in ("error", "reason")
        }
    failed = [chunk for chunk in chunks if chunk["error"] is not None]
    if not failed:
        return
    # Windows reach past their chunk's end: a chunk that failed answers for what is missing up to the next one that did.
    starts_us = [0, *(chunk["chunk_start_us"] for chunk in failed[1:]), failed[-1]["duration_us"]]
    for chunk, (start_us, end_us) in zip(failed, pairwise(starts_us), strict=True):
        for span in subtract_spans(Span(start_us, end_us), covered):
            yield {"start_s": span.start_s, "end_s": span.end_s} | {
                name: chunk[name] for name in ("stage", "error", "reason", "attempts")
            }


def _action(action_id: int, labels: tuple[str, ...]) -> dict[str, Any]:
    body_part_id = BODY_PART_OF[action_id]
    return {
        "action": labels[action_id],
        "action_id": action_id,
        "body_part": BODY_PARTS[body_part_id],
        "body_part_id": body_part_id,
    }


def _add(totals: Published, rows: dict[str, list[dict[str, Any]]]) -> Published:
    (video,) = rows["videos"]
    return Published(
        num_videos=totals.num_videos + 1,
        num_windows=totals.num_windows + len(rows["windows"]),
        num_events=totals.num_events + len(rows["events"]),
        num_failures=totals.num_failures + len(rows["failures"]),
        video_s=totals.video_s + (video["duration_s"] or 0.0),
        covered_s=totals.covered_s + video["covered_s"],
        failed_s=totals.failed_s + video["failed_s"],
    )
