"""The plan: the chunks of a catalog's readable videos, each with an id that identifies its work exactly.

All in columns: an archive may hold a million videos.
"""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.labeling.settings import VideoLabelSettings
from microaction.schema import CHUNK, PLAN, REGION_COLUMNS, SEEK_POINTS
from microaction.video.windows import MICROSECONDS, microseconds

BLOCK_VIDEO_US = 120 * MICROSECONDS  # as much as one default chunk, so that short clips share a block's overhead
BLOCK_MAX_CHUNKS = 64  # of very short clips: more per block would only delay the commit
ROWS_AT_ONCE = 10_000
SEEK_POINTS_BEFORE_CHUNK = 2  # H.264 begins one point earlier than its frames need


def plan_chunks(catalog: pa.Table, chunk_us: int, model_digest: str, settings_digest: str) -> pa.Table:
    """Return the chunks of all readable videos of a catalog: a table of `schema.PLAN`, by video and time.

    A chunk's id is a hash of everything that decides its result: if any of that changes, the work is new; if nothing does, it
    is done.
    """
    rows_V = np.flatnonzero(pc.is_null(catalog["error"]).to_numpy())
    readable = catalog.take(pa.array(rows_V))
    durations_us_V = durations_us(readable)
    num_chunks_V = -(-durations_us_V // chunk_us)
    total = int(num_chunks_V.sum())
    number_C = np.arange(total) - np.repeat(np.cumsum(num_chunks_V) - num_chunks_V, num_chunks_V)
    starts_us_C = number_C * chunk_us
    ends_us_C = np.minimum(starts_us_C + chunk_us, np.repeat(durations_us_V, num_chunks_V))
    ids = _chunk_ids(readable, num_chunks_V, starts_us_C, ends_us_C, (model_digest, settings_digest))
    columns = [
        pa.array(ids, pa.string(), size=total),
        pa.array(np.repeat(rows_V, num_chunks_V), pa.int32()),
        pa.array(starts_us_C, pa.int64()),
        pa.array(ends_us_C, pa.int64()),
        pa.array(np.ones(total), pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=PLAN)


def durations_us(videos: pa.Table) -> np.ndarray:
    """Return the length of each video of a catalog, in whole microseconds; 0 where it is unknown."""
    seconds: np.ndarray = pc.fill_null(videos["duration_s"], 0.0).to_numpy()
    whole: np.ndarray = np.rint(seconds * MICROSECONDS).astype(np.int64)
    return whole


def plan_blocks(plan: pa.Table) -> list[range]:
    """Cut the plan into the blocks that decode tasks take, as ranges of its rows: one long chunk, or several of short
    clips."""
    blocks: list[range] = []
    start, video_us = 0, 0
    lengths_us = (plan["chunk_end_us"].to_numpy() - plan["chunk_start_us"].to_numpy()).tolist()
    for row, length_us in enumerate(lengths_us):
        if row > start and (video_us + length_us > BLOCK_VIDEO_US or row - start >= BLOCK_MAX_CHUNKS):
            blocks.append(range(start, row))
            start, video_us = row, 0
        video_us += length_us
    if start < len(plan):
        blocks.append(range(start, len(plan)))
    return blocks


def chunk_table(plan: pa.Table, catalog: pa.Table, base_chunks: pa.Table | None = None) -> pa.Table:
    """Return rows of a plan with all that a worker must know of their videos: a table of `schema.CHUNK`.

    `base_chunks` says where a base run holds them: `chunk_id`, `base_chunk_id`, `base_file`.
    """
    videos = catalog.take(plan["video_row"].combine_chunks())
    columns = {name: plan[name] for name in PLAN.names} | {
        name: videos[name] for name in ("video", "fps", *REGION_COLUMNS)
    }
    columns |= {
        "video_version": videos["version"],
        "duration_us": pa.array(durations_us(videos)),
        "seek_points": _seek_points(plan, catalog),
    }
    if base_chunks is None:
        columns |= {name: pa.nulls(len(plan), pa.string()) for name in ("base_chunk_id", "base_file")}
    else:
        rows = pc.index_in(plan["chunk_id"], value_set=base_chunks["chunk_id"].combine_chunks())
        columns |= {name: base_chunks[name].take(rows) for name in ("base_chunk_id", "base_file")}
    return pa.table({name: columns[name] for name in CHUNK.names}).cast(CHUNK)


def _seek_points(plan: pa.Table, catalog: pa.Table) -> pa.Array:
    """Return of each chunk's video the seek points that the chunk may begin at, up to its end."""
    has_points = pc.fill_null(pc.greater(pc.list_value_length(catalog["seek_points"]), 0), False).to_numpy()
    column: list[list[dict[str, int]] | None] = [None] * len(plan)
    points: list[dict[str, int]] = []
    times_us: list[int] = []
    previous = None
    spans = (plan[name].to_pylist() for name in ("video_row", "chunk_start_us", "chunk_end_us"))
    for chunk, (video_row, start_us, end_us) in enumerate(zip(*spans, strict=True)):
        if not has_points[video_row]:
            continue
        if video_row != previous:  # a plan lists the chunks of a video together
            points = catalog["seek_points"][video_row].as_py()
            times_us, previous = [point["time_us"] for point in points], video_row
        first = max(bisect_right(times_us, start_us) - SEEK_POINTS_BEFORE_CHUNK, 0)
        column[chunk] = points[first : bisect_left(times_us, end_us)]
    return pa.array(column, SEEK_POINTS)


def count_windows(plan: pa.Table, catalog: pa.Table, settings: VideoLabelSettings) -> np.ndarray:
    """Return how many windows start in each chunk of a plan: the lengths of `windows.split_windows`."""
    durations_us_C = durations_us(catalog)[plan["video_row"].to_numpy()]
    starts_us_C: np.ndarray = plan["chunk_start_us"].to_numpy()
    ends_us_C: np.ndarray = plan["chunk_end_us"].to_numpy()
    return _count_starts(starts_us_C, ends_us_C, durations_us_C, settings)


def count_all_windows(catalog: pa.Table, settings: VideoLabelSettings) -> int:
    """Return how many windows all videos of a catalog have."""
    durations_us_V = durations_us(catalog.filter(pc.is_null(catalog["error"])))
    return int(_count_starts(np.zeros_like(durations_us_V), durations_us_V, durations_us_V, settings).sum())


def _count_starts(
    starts_us: np.ndarray, ends_us: np.ndarray, durations_us: np.ndarray, settings: VideoLabelSettings
) -> np.ndarray:
    window_us, stride_us = microseconds(settings.window_s), microseconds(settings.stride_s)
    last_us = np.maximum(durations_us - window_us, 0)
    on_grid: np.ndarray = np.minimum(ends_us - 1, last_us) // stride_us - -(-starts_us // stride_us) + 1
    moved_back = (last_us % stride_us != 0) & (starts_us <= last_us) & (last_us < ends_us)
    counts: np.ndarray = np.maximum(on_grid, 0) + moved_back
    return counts


def _chunk_ids(
    videos: pa.Table,
    num_chunks_V: np.ndarray,
    starts_us_C: np.ndarray,
    ends_us_C: np.ndarray,
    digests: tuple[str, str],
) -> Iterator[str]:
    spans = zip(starts_us_C, ends_us_C, strict=True)
    names = ["video", "version", *REGION_COLUMNS]
    for first in range(0, len(videos), ROWS_AT_ONCE):
        some = videos.select(names).slice(first, ROWS_AT_ONCE)
        counts = num_chunks_V[first : first + ROWS_AT_ONCE]
        for identity, count in zip(_rows(some), counts, strict=True):
            video_hash = hashlib.sha256(json.dumps([*identity, *digests]).encode())
            for _ in range(count):
                hashed = video_hash.copy()
                hashed.update(b" %d %d" % next(spans))
                yield hashed.hexdigest()[:32]


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
