"""What a run would do and about what it takes: counted where it can be, measured on a small sample where it must."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from microaction.config import LabelSettings
from microaction.labeling.decoder import Decoder
from microaction.labeling.labeler import Labeler
from microaction.labeling.ledger import best_rows
from microaction.labeling.pipeline import block_bytes, labeler_pool
from microaction.labeling.plan import chunks_of, count_windows
from microaction.machines import result_of
from microaction.model import CheckpointConfig
from microaction.model.classifier import Execution
from microaction.video.windows import MICROSECONDS

SAMPLED_CHUNKS = 4
SAMPLED_US = 20 * MICROSECONDS  # of each
MEASURED_S = 2.0
DECODER_BYTES = 250 << 20  # of a decoding worker and its decoder's process, without frames (make bench: memory)


@dataclass(frozen=True)
class Estimate:
    """What is there, what is to do, and about what it takes.

    Hours of cores and devices are those of this cluster's kind of machines, alone; `decode_core_h` and `bytes_to_read` are
    None where nothing of the sample could be read. `device` is GPU or CPU; of a CPU `device_h` are core-hours.
    """

    num_videos: int
    num_unreadable: int
    video_h: float
    num_chunks: int
    num_committed: int
    num_failed_before: int
    num_todo: int
    todo_h: float
    bytes_to_read: int | None
    decode_core_h: float | None
    device: str
    device_h: float
    bytes_per_decode_task: int
    num_windows: int


def estimate(
    catalog: pa.Table,
    plan: pa.Table,
    todo: pa.Table,
    index: pa.Table,
    settings: LabelSettings,
    checkpoint: CheckpointConfig,
    execution: Execution,
) -> Estimate:
    """Decodes and labels a little of what is to do; needs a running Ray. Networks are not compiled for it."""
    windows_C = count_windows(todo, catalog, settings)
    todo_us = _sum_us(todo)
    in_plan = index.filter(pc.is_in(index["chunk_id"], value_set=plan["chunk_id"].combine_chunks()))
    best = best_rows(in_plan)
    decode_s, read_bytes = _measure_decoding(todo, catalog, settings, checkpoint) if len(todo) else (0.0, 0.0)
    pool = labeler_pool(settings)
    window_s = measure_model(settings, checkpoint, Execution(execution.precision, False)) if len(todo) else 0.0
    todo_s = todo_us / MICROSECONDS
    return Estimate(
        num_videos=len(catalog),
        num_unreadable=len(catalog) - catalog["error"].null_count,
        video_h=_sum_us(plan) / MICROSECONDS / 3600,
        num_chunks=len(plan),
        num_committed=len(plan) - len(todo),
        num_failed_before=len(best) - best["error"].null_count,
        num_todo=len(todo),
        todo_h=todo_s / 3600,
        bytes_to_read=None if read_bytes is None else int(read_bytes * todo_s),
        decode_core_h=None if decode_s is None else decode_s * todo_s / 3600,
        device="GPU" if pool.num_gpus else "CPU",
        device_h=window_s * int(windows_C.sum()) * (1 if pool.num_gpus else pool.num_threads) / 3600,
        bytes_per_decode_task=DECODER_BYTES + 2 * block_bytes(settings, checkpoint),
        num_windows=int(windows_C.sum()),
    )


def measure_model(settings: LabelSettings, checkpoint: CheckpointConfig, execution: Execution) -> float:
    """Seconds that a labeler takes for a window, on a device of the cluster."""
    pool = labeler_pool(settings)
    measure = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(_window_s)
    task = measure.remote(settings, checkpoint, execution, pool.num_threads)
    what = "measuring the network"
    return float(result_of(task, settings.machines_wait_s, what, setting="machines_wait_s"))


def _window_s(settings: LabelSettings, checkpoint: CheckpointConfig, execution: Execution, num_threads: int) -> float:
    assert settings.batch_windows is not None, "a run has settled it"
    labeler = Labeler(settings.model, execution, settings.batch_windows, num_threads)
    crop, T = checkpoint.preprocessing.crop, checkpoint.model.num_segments
    B = labeler.classify.batch_size
    frames = torch.zeros(B * T, crop, crop, 3, dtype=torch.uint8)
    windows_BT = torch.arange(B * T).reshape(B, T)
    num_windows, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < MEASURED_S:
        labeler.classify(frames, windows_BT)
        num_windows += B
    return (time.perf_counter() - started_s) / num_windows


def _measure_decoding(
    todo: pa.Table, catalog: pa.Table, settings: LabelSettings, checkpoint: CheckpointConfig
) -> tuple[float | None, float | None]:
    """Core-seconds and bytes per second of video, over some chunks of the plan, one at a time."""
    places = np.random.default_rng(0).choice(len(todo), min(SAMPLED_CHUNKS, len(todo)), replace=False)
    rows = chunks_of(todo.take(pa.array(places)), catalog).to_pylist()
    measure = ray.remote(num_cpus=labeler_pool(settings).decode_cpus, max_retries=0)(_decode_some)
    decoder = Decoder.of(settings, checkpoint, keeper=None)
    what = "measuring how long decoding takes"
    measured = [
        result_of(measure.remote(decoder, row), settings.machines_wait_s, what, setting="machines_wait_s")
        for row in rows
    ]
    video_s = sum(each[0] for each in measured)
    if not video_s:
        return None, None
    return sum(each[1] for each in measured) / video_s, sum(each[2] for each in measured) / video_s


def _decode_some(decoder: Decoder, row: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of video, seconds taken, bytes read; nothing where the chunk cannot be decoded."""
    end_us = min(row["chunk_end_us"], row["chunk_start_us"] + SAMPLED_US)
    short = row | {"chunk_end_us": end_us}
    decoder(short | {"chunk_end_us": min(end_us, row["chunk_start_us"] + 1)})  # starts the decoder's process
    started_s = time.perf_counter()
    done = decoder(short)
    taken_s = time.perf_counter() - started_s
    if done["error"]:
        return 0.0, 0.0, 0
    return (end_us - row["chunk_start_us"]) / MICROSECONDS, taken_s, done["num_bytes"]


def _sum_us(chunks: pa.Table) -> int:
    return pc.sum(pc.subtract(chunks["chunk_end_us"], chunks["chunk_start_us"])).as_py() or 0
