"""The plan: the chunks of a catalog's readable videos, each with an id that says exactly what work it is."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from microaction.schema import CHUNK, REGION_COLUMNS
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_chunks

BLOCK_VIDEO_US = 120 * MICROSECONDS  # as much as one default chunk, so that short clips share a block's overhead
BLOCK_MAX_CHUNKS = 64  # of very short clips: more a block would only delay what is committed


def plan_chunks(catalog: pa.Table, chunk_us: int, model_digest: str, settings_digest: str) -> pa.Table:
    """The chunks of all readable videos of a catalog: a table of `schema.CHUNK`, by video and time."""
    rows = [
        {
            "chunk_id": chunk_id(video["video"], video["version"], span, region, model_digest, settings_digest),
            "video": video["video"],
            "video_version": video["version"],
            "chunk_start_us": span.start_us,
            "chunk_end_us": span.end_us,
            "duration_us": microseconds(video["duration_s"]),
            **dict(zip(REGION_COLUMNS, region, strict=True)),
            "attempts": 1,
        }
        for video in _readable(catalog)
        for region in [[video[name] for name in REGION_COLUMNS]]
        for span in split_chunks(microseconds(video["duration_s"]), chunk_us)
    ]
    return pa.Table.from_pylist(rows, schema=CHUNK)


def chunk_id(
    video: str, version: str, span: Span, region: list[int | None], model_digest: str, settings_digest: str
) -> str:
    """A hash of all that decides a chunk's result: when any of it changes, the work is new; when none does, it is done."""
    key = json.dumps([video, version, *span, *region, model_digest, settings_digest])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def plan_blocks(chunks: pa.Table) -> list[pa.Table]:
    """Cuts the plan into the blocks that decode tasks take: one long chunk, or several of short clips."""
    blocks: list[pa.Table] = []
    start, video_us = 0, 0
    lengths_us = _lengths_us(chunks)
    for row, length_us in enumerate(lengths_us):
        full = video_us + length_us > BLOCK_VIDEO_US or row - start >= BLOCK_MAX_CHUNKS
        if full and row > start:
            blocks.append(chunks.slice(start, row - start))
            start, video_us = row, 0
        video_us += length_us
    if start < len(chunks):
        blocks.append(chunks.slice(start))
    return blocks


def _lengths_us(chunks: pa.Table) -> Iterable[int]:
    starts, ends = chunks["chunk_start_us"].to_pylist(), chunks["chunk_end_us"].to_pylist()
    return (end - start for start, end in zip(starts, ends, strict=True))


def _readable(catalog: pa.Table) -> Iterator[dict[str, Any]]:
    columns = ["video", "version", "duration_s", "error", *REGION_COLUMNS]
    for row in catalog.select(columns).to_pylist():
        if row["error"] is None:
            yield row
