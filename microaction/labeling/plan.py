"""The plan: the chunks of a catalog's readable videos, each with an id that identifies its work exactly.

All in columns: an archive may hold a million videos.
"""

import functools
import hashlib
import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.labeling.people import duration_us, labeled_spans
from microaction.labeling.settings import VideoLabelSettings
from microaction.schema import CHUNK, CROPS, PLAN, REGION_COLUMNS, SEEK_POINTS
from microaction.video.windows import MICROSECONDS, Span, WindowGrid, microseconds

BLOCK_VIDEO_US = 120 * MICROSECONDS  # as much as one default chunk, so that short clips share a block's overhead
BLOCK_MAX_CHUNKS = 64  # of very short clips: more per block would only delay the commit
MAX_WINDOWS_OF_ONE = 1.25  # of a chunk of one person, in a chunk of several
ROWS_AT_ONCE = 10_000
SEEK_POINTS_BEFORE_CHUNK = 2  # H.264 begins one point earlier than its frames need


def plan_chunks(
    catalog: pa.Table,
    settings: VideoLabelSettings,
    model_digest: str,
    settings_digest: str,
    people: pa.Table | None = None,
    *,
    grid: WindowGrid | None = None,
    reach_us: int = 0,
) -> pa.Table:
    """Return the chunks of all readable videos of a catalog: a table of `schema.PLAN`, by video and time.

    A chunk's id is a hash of everything that decides its result: if any of that changes, the work is new; if nothing does, it
    is done. Of videos in `people` (`schema.VIDEO_PEOPLE`), chunks are those in which windows of their people start. `grid`: of
    the windows, by default as the settings say; what is up to `reach_us` beyond a chunk decides its result too.
    """
    chunk_us, digests = microseconds(settings.chunk_s), (model_digest, settings_digest)
    grid = grid or WindowGrid(microseconds(settings.window_s), microseconds(settings.stride_s))
    rows_V = np.flatnonzero(pc.is_null(catalog["error"]).to_numpy())
    if people is None:
        return _whole_frames(catalog, rows_V, chunk_us, grid, digests)
    has_people_V = pc.is_in(catalog["video"], value_set=people["video"].combine_chunks()).to_numpy()[rows_V]
    whole = _whole_frames(catalog, rows_V[~has_people_V], chunk_us, grid, digests)
    by_person = list(_chunks_of_people(catalog, rows_V[has_people_V], people, chunk_us, grid, digests, reach_us))
    plan = pa.concat_tables([whole, *by_person])
    return plan.sort_by([("video_row", "ascending"), ("chunk_start_us", "ascending")]) if by_person else plan


def plan_looks(catalog: pa.Table, looks_us: int, looks_digest: str) -> pa.Table:
    """Return the parts of a catalog's videos that are looked at: the chunks of that stage, a table of `schema.PLAN`.

    Not of videos with a region.
    """
    has_region = functools.reduce(pc.or_, (pc.is_valid(catalog[name]) for name in REGION_COLUMNS))
    is_seen = pc.and_(pc.is_null(catalog["error"]), pc.invert(has_region))
    return _whole_frames(catalog, np.flatnonzero(is_seen.to_numpy()), looks_us, None, (looks_digest,))


def _whole_frames(
    catalog: pa.Table,
    rows_V: np.ndarray,
    chunk_us: int,
    grid: WindowGrid | None,
    digests: tuple[str, ...],
) -> pa.Table:
    """Return the chunks of some videos, all of each; without a grid they have no windows."""
    videos = catalog.take(pa.array(rows_V))
    durations_us_V = durations_us(videos)
    num_chunks_V = -(-durations_us_V // chunk_us)
    total = int(num_chunks_V.sum())
    number_C = np.arange(total) - np.repeat(np.cumsum(num_chunks_V) - num_chunks_V, num_chunks_V)
    durations_us_C = np.repeat(durations_us_V, num_chunks_V)
    starts_us_C = number_C * chunk_us
    ends_us_C = np.minimum(starts_us_C + chunk_us, durations_us_C)
    num_windows_C = np.zeros(total, np.int64)
    if grid is not None:
        num_windows_C = grid.counts(starts_us_C, ends_us_C, durations_us_C)
    columns = [
        pa.array(_chunk_ids(videos, num_chunks_V, starts_us_C, ends_us_C, digests), pa.string(), size=total),
        pa.array(np.repeat(rows_V, num_chunks_V), pa.int32()),
        pa.array(starts_us_C, pa.int64()),
        pa.array(ends_us_C, pa.int64()),
        pa.nulls(total, CROPS),
        pa.array(num_windows_C, pa.int32()),
        pa.array(np.ones(total), pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=PLAN)


def _chunks_of_people(
    catalog: pa.Table,
    rows_V: np.ndarray,
    people: pa.Table,
    chunk_us: int,
    grid: WindowGrid,
    digests: tuple[str, str],
    reach_us: int,
) -> Iterator[pa.Table]:
    """Yield the chunks of videos by person, some thousand at a time."""
    row_of = {name: row for row, name in enumerate(people["video"].to_pylist())}
    rows: list[dict[str, Any]] = []
    for video_row in rows_V.tolist():
        video = catalog.slice(video_row, 1).select(["video", "version", "duration_s"]).to_pylist()[0]
        spans = labeled_spans(people.slice(row_of[video["video"]], 1).to_pylist()[0])
        starts_us_P = [span["start_us"] + grid.starts(span["end_us"] - span["start_us"]) for span in spans]
        for chunk in _chunk_spans(starts_us_P, chunk_us, grid):
            here = [
                (span, starts_us[first:end])
                for span, starts_us in zip(spans, starts_us_P, strict=True)
                for first, end in [np.searchsorted(starts_us, chunk).tolist()]
                if first < end
            ]
            start_us, end_us = chunk.start_us, min(chunk.end_us, duration_us(video))
            # What an end is far away from does not depend on it.
            windows = [
                [span | {"end_us": None}, len(inside), *_last_window(span, inside, grid, reach_us)]
                for span, inside in here
            ]
            identity = [video["video"], video["version"], windows, *digests, start_us, end_us]
            rows.append(
                {
                    "chunk_id": hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32],
                    "video_row": video_row,
                    "chunk_start_us": start_us,
                    "chunk_end_us": end_us,
                    "crops": [span for span, _ in here],
                    "num_windows": sum(len(inside) for _, inside in here),
                    "attempts": 1,
                }
            )
        if len(rows) >= ROWS_AT_ONCE:
            yield pa.Table.from_pylist(rows, schema=PLAN)
            rows = []
    yield pa.Table.from_pylist(rows, schema=PLAN)


def _last_window(span: Mapping[str, int], starts_us: np.ndarray, grid: WindowGrid, reach_us: int) -> Span:
    last_us = int(starts_us[-1])
    return Span(last_us, min(last_us + grid.window_us + reach_us, span["end_us"]))


def _chunk_spans(starts_us_P: list[np.ndarray], chunk_us: int, grid: WindowGrid) -> Iterator[Span]:
    """Yield the chunks in which windows start.

    Where several people are labeled at once, a chunk is cut into equal parts, so that none holds many more frames than a chunk
    of one person does.
    """
    starts_us = np.sort(np.concatenate(starts_us_P)) if starts_us_P else np.empty(0, np.int64)
    most = math.ceil(MAX_WINDOWS_OF_ONE * chunk_us / grid.stride_us)
    numbers, counts = np.unique(starts_us // chunk_us, return_counts=True)
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        num_parts = min(-(-count // most), chunk_us)
        borders = [number * chunk_us + chunk_us * part // num_parts for part in range(num_parts + 1)]
        for span in (Span(*pair) for pair in pairwise(borders)):
            first, end = np.searchsorted(starts_us, span)
            if first < end:
                yield span


def durations_us(videos: pa.Table) -> np.ndarray:
    """Return the length of each video of a catalog, in whole microseconds; 0 where it is unknown."""
    seconds: np.ndarray = pc.fill_null(videos["duration_s"], 0.0).to_numpy()
    whole: np.ndarray = np.rint(seconds * MICROSECONDS).astype(np.int64)
    return whole


def plan_blocks(plan: pa.Table, stride_us: int = 0) -> list[range]:
    """Cut the plan into the blocks that decode tasks take, as ranges of its rows: one long chunk, or several of short clips.

    With `stride_us`, the time of all people counts.
    """
    blocks: list[range] = []
    start, video_us = 0, 0
    lengths_us = plan["chunk_end_us"].to_numpy() - plan["chunk_start_us"].to_numpy()
    lengths_us = np.maximum(lengths_us, plan["num_windows"].to_numpy().astype(np.int64) * stride_us).tolist()
    for row, length_us in enumerate(lengths_us):
        if row > start and (video_us + length_us > BLOCK_VIDEO_US or row - start >= BLOCK_MAX_CHUNKS):
            blocks.append(range(start, row))
            start, video_us = row, 0
        video_us += length_us
    if start < len(plan):
        blocks.append(range(start, len(plan)))
    return blocks


def chunk_table(
    plan: pa.Table, catalog: pa.Table, base_chunks: pa.Table | None = None, *, reach_us: int = 0
) -> pa.Table:
    """Return rows of a plan with all that a worker must know of their videos: a table of `schema.CHUNK`.

    `base_chunks` says where a base run holds them: `chunk_id`, `base_chunk_id`, `base_file`, `base_crops`. Frames are needed up
    to `reach_us` before and after a chunk.
    """
    videos = catalog.take(plan["video_row"].combine_chunks())
    columns = {name: plan[name] for name in PLAN.names if name in CHUNK.names} | {
        name: videos[name] for name in ("video", "fps", *REGION_COLUMNS)
    }
    columns |= {
        "video_version": videos["version"],
        "duration_us": pa.array(durations_us(videos)),
        "seek_points": _seek_points(plan, catalog, reach_us),
    }
    base_columns = ("base_chunk_id", "base_file", "base_crops")
    if base_chunks is None:
        columns |= {name: pa.nulls(len(plan), CHUNK.field(name).type) for name in base_columns}
    else:
        rows = pc.index_in(plan["chunk_id"], value_set=base_chunks["chunk_id"].combine_chunks())
        columns |= {name: base_chunks[name].take(rows) for name in base_columns}
    return pa.table({name: columns[name] for name in CHUNK.names}).cast(CHUNK)


def _seek_points(plan: pa.Table, catalog: pa.Table, reach_us: int) -> pa.Array:
    """Return of each chunk's video the seek points that decoding may begin at, from `reach_us` before it to as much after."""
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
        first = max(bisect_right(times_us, start_us - reach_us) - SEEK_POINTS_BEFORE_CHUNK, 0)
        column[chunk] = points[first : bisect_left(times_us, end_us + reach_us)]
    return pa.array(column, SEEK_POINTS)


def _chunk_ids(
    videos: pa.Table,
    num_chunks_V: np.ndarray,
    starts_us_C: np.ndarray,
    ends_us_C: np.ndarray,
    digests: tuple[str, ...],
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
