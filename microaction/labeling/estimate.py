"""What a run would do and about what it takes: counted where possible, measured on a small sample otherwise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.labeling.catalog import PassedOver
from microaction.labeling.execution import Device
from microaction.labeling.grid import reach_us
from microaction.labeling.ledger import best_rows
from microaction.labeling.measure import measure_decoding, measure_looking, measure_network
from microaction.labeling.people import labeled_spans
from microaction.labeling.plan import chunk_table
from microaction.labeling.prepare import PreparedRun
from microaction.models.classifier import Execution
from microaction.video.windows import MICROSECONDS

SAMPLED_CHUNKS = 4
DECODER_BYTES = 250 << 20  # of a decode worker and its decoder's process, without frames (make bench: memory)
S_PER_H = 3600


@dataclass(frozen=True)
class Estimate:
    """What exists, what is to do, and about what it takes.

    Hours of cores and devices are those of this cluster's kind of nodes, without other work; `decode_core_h` and
    `bytes_to_read` are None if nothing of the sample could be decoded. For `device` CPU, `device_h` are core-hours.
    `num_people`: how many people a sample shows at once, where they have not been looked for yet; windows count for each of them.
    `num_known_people`: those who are labeled in the videos where they have been; None if whole frames are labeled.
    `passed_over`: what the archive holds besides videos.
    """

    num_videos: int
    num_unreadable: int
    video_h: float
    num_chunks: int
    num_committed: int
    num_failed_before: int
    num_todo: int
    todo_h: float
    num_people: float | None
    num_known_people: int | None
    look_core_h: float
    bytes_to_read: int | None
    decode_core_h: float | None
    device: Device
    device_h: float
    bytes_per_decode_task: int
    num_windows: int
    passed_over: str


def estimate(run: PreparedRun) -> Estimate:
    """Look at, decode and label a little of what is to do; needs a running Ray. The network is not compiled for it."""
    settings, config, pool, todo = run.settings, run.checkpoint.config, run.pool, run.todo
    num_windows, todo_s = _sum(todo["num_windows"]), _sum_us(todo) / MICROSECONDS
    in_plan = run.index.filter(pc.is_in(run.index["chunk_id"], value_set=run.plan["chunk_id"].combine_chunks()))
    best = best_rows(in_plan)
    cost, window_s, looking, look_s = None, 0.0, None, 0.0
    if len(todo):
        cost = measure_decoding(_sampled(todo, run), settings, config, pool)
        eager = Execution(run.execution.precision, is_compiled=False)
        window_s = measure_network(settings, run.checkpoint, eager, run.batch_windows, pool)
        unseen = _unseen(todo, run)
        if len(unseen):
            looking = measure_looking(_sampled(unseen, run), settings, pool)
            look_s = looking.core_s * _sum_us(unseen) / MICROSECONDS
            num_windows += round((looking.num_people - 1) * _sum(unseen["num_windows"]))
    is_unknown = cost is None and len(todo) > 0
    return Estimate(
        num_videos=len(run.catalog),
        num_unreadable=len(run.catalog) - run.catalog["error"].null_count,
        video_h=_sum_us(run.plan) / MICROSECONDS / S_PER_H,
        num_chunks=len(run.plan),
        num_committed=len(run.plan) - len(todo),
        num_failed_before=len(best) - best["error"].null_count,
        num_todo=len(todo),
        num_people=None if looking is None else looking.num_people,
        num_known_people=None if run.people is None else _num_labeled_people(run.people),
        look_core_h=look_s / S_PER_H,
        todo_h=todo_s / S_PER_H,
        bytes_to_read=None if is_unknown else int((cost.num_bytes if cost else 0.0) * todo_s),
        decode_core_h=None if is_unknown else (cost.core_s if cost else 0.0) * todo_s / S_PER_H,
        device=pool.device,
        device_h=window_s * num_windows * (1 if pool.num_gpus else pool.num_threads) / S_PER_H,
        bytes_per_decode_task=DECODER_BYTES + 2 * run.block_bytes,
        num_windows=num_windows,
        passed_over=str(PassedOver.of(run.catalog)),
    )


def _sampled(chunks: pa.Table, run: PreparedRun) -> list[dict[str, Any]]:
    """Return a few rows of `schema.CHUNK`."""
    sample = np.random.default_rng(0).choice(len(chunks), min(SAMPLED_CHUNKS, len(chunks)), replace=False)
    return list(
        chunk_table(chunks.take(pa.array(sample)), run.catalog, reach_us=reach_us(run.checkpoint.config)).to_pylist()
    )


def _unseen(todo: pa.Table, run: PreparedRun) -> pa.Table:
    """Return the chunks of videos whose people are not known yet: they are planned as whole frames."""
    if run.people is None:
        return todo.slice(0, 0)
    videos = run.catalog.take(todo["video_row"].combine_chunks())
    is_whole = pc.and_(pc.is_null(todo["crops"]), pc.is_null(videos["region_left"]))
    return todo.filter(is_whole)


def _num_labeled_people(people: pa.Table) -> int:
    return sum(len({span["person"] for span in labeled_spans(found)}) for found in people.to_pylist())


def _sum_us(chunks: pa.Table) -> int:
    return _sum(pc.subtract(chunks["chunk_end_us"], chunks["chunk_start_us"]))


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0
