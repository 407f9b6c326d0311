"""Short measurements on the cluster: how long the network and the decoders take."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray
import torch

from microaction.distributed.waiting import get_or_cancel
from microaction.labeling.decoder import Decoder
from microaction.labeling.feature_labeler import FeatureLabeler
from microaction.labeling.grid import is_detector
from microaction.labeling.labeler import Labeler
from microaction.labeling.looks import Looker, looks_of
from microaction.labeling.pool import LabelerPool
from microaction.labeling.settings import LabelSettings
from microaction.models import Checkpoint, CheckpointConfig, ModelRef
from microaction.models.classifier import Execution, no_keypoints
from microaction.people.following import MIN_HEIGHT
from microaction.people.looks import MAX_GAP_US
from microaction.video.sandbox import Limits
from microaction.video.windows import MICROSECONDS

MEASURED_S = 2.0
SAMPLED_US = 20 * MICROSECONDS  # of each chunk
LOOKED_US = 60 * MICROSECONDS


class DecodingCost(NamedTuple):
    """Core-seconds and bytes per second of video."""

    core_s: float
    num_bytes: float


class LookingCost(NamedTuple):
    """Core-seconds per second of video, and how many people are seen at once."""

    core_s: float
    num_people: float


def query_labeler_node(ask: Callable[[str], Any], settings: LabelSettings, pool: LabelerPool) -> Any:
    """Return what `ask("cuda")` or `ask("cpu")` returns on a node that will label."""
    task = ray.remote(num_cpus=0, num_gpus=pool.num_gpus)(ask).remote("cuda" if pool.num_gpus else "cpu")
    return get_or_cancel(task, settings.node_wait_s, "querying a labeler's node", setting="node_wait_s")


def measure_network(
    settings: LabelSettings, checkpoint: Checkpoint, execution: Execution, batch_windows: int, pool: LabelerPool
) -> float:
    """Return the seconds that a labeler takes per window, on a device of the cluster."""
    measure = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(_window_s)
    task = measure.remote(checkpoint.ref, checkpoint.config, execution, batch_windows, pool.num_threads)
    return float(get_or_cancel(task, settings.node_wait_s, "measuring the network", setting="node_wait_s"))


def measure_decoding(
    rows: Sequence[dict[str, Any]], settings: LabelSettings, config: CheckpointConfig, pool: LabelerPool
) -> DecodingCost | None:
    """Return the cost of decoding the beginnings of some chunks, one at a time; None if none can be decoded."""
    measure = ray.remote(num_cpus=pool.decode_cpus, max_retries=0)(_decode_some)
    decoder = Decoder.of(settings, config, archive=settings.archive)
    measured = [
        get_or_cancel(measure.remote(decoder, row), settings.node_wait_s, "measuring decoding", setting="node_wait_s")
        for row in rows
    ]
    video_s, core_s, num_bytes = (sum(each) for each in zip(*measured, strict=True))
    return DecodingCost(core_s / video_s, num_bytes / video_s) if video_s else None


def measure_looking(rows: Sequence[dict[str, Any]], settings: LabelSettings, pool: LabelerPool) -> LookingCost:
    """Return the cost of looking for people in some chunks, and how many they show; 1 where nothing can be seen."""
    measure = ray.remote(num_cpus=pool.decode_cpus, max_retries=0)(_look_at_some)
    looker = Looker(Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)))
    measured = [
        get_or_cancel(measure.remote(looker, row), settings.node_wait_s, "looking for people", setting="node_wait_s")
        for row in rows
    ]
    video_s, core_s, num_looks, num_seen = (sum(each) for each in zip(*measured, strict=True))
    return LookingCost(core_s / video_s, num_seen / num_looks if num_looks else 1.0)


def _look_at_some(looker: Looker, row: dict[str, Any]) -> tuple[float, float, int, int]:
    """Return seconds of video, seconds taken, looks taken, and people seen in them who are tall enough."""
    start_us = row["chunk_start_us"] // MAX_GAP_US * MAX_GAP_US
    short = row | {"chunk_start_us": start_us, "chunk_end_us": min(start_us + LOOKED_US, row["duration_us"])}
    looker(short | {"chunk_end_us": start_us})  # starts the decoder's process
    started_s = time.perf_counter()
    looks = looks_of(looker(short)["looks"])
    taken_s = time.perf_counter() - started_s
    heights = [(person.box[3] - person.box[1]) / look.height for look in looks for person in look.people]
    num_seen = sum(height >= MIN_HEIGHT for height in heights)
    return (short["chunk_end_us"] - start_us) / MICROSECONDS, taken_s, len(looks), num_seen


def _window_s(
    model: ModelRef, config: CheckpointConfig, execution: Execution, batch_windows: int, num_threads: int
) -> float:
    if is_detector(config):
        return _step_s(model, config, execution, batch_windows, num_threads)
    labeler = Labeler(model, execution, batch_windows, num_threads)
    crop, T = config.preprocessing.side, config.num_sampled
    B = labeler.classify.batch_size
    frames = torch.zeros(B * T, crop, crop, 3, dtype=torch.uint8)
    windows_BT = torch.arange(B * T).reshape(B, T)
    keypoints_BMTK3 = no_keypoints(config, B)
    num_windows, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < MEASURED_S:
        labeler.classify(frames, windows_BT, keypoints_BMTK3)
        num_windows += B
    return (time.perf_counter() - started_s) / num_windows


def _step_s(
    model: ModelRef, config: CheckpointConfig, execution: Execution, batch_frames: int, num_threads: int
) -> float:
    extractor = FeatureLabeler(model, execution, batch_frames, num_threads).extractor
    side, T = config.preprocessing.side, 4 * batch_frames
    frames, rows = torch.zeros(1, side, side, 3, dtype=torch.uint8), torch.zeros(T, dtype=torch.int64)
    num_steps, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < MEASURED_S:
        extractor(frames, rows, 0, range(T), T)
        num_steps += T
    return (time.perf_counter() - started_s) / num_steps


def _decode_some(decoder: Decoder, row: dict[str, Any]) -> tuple[float, float, int]:
    """Return seconds of video, seconds taken and bytes read; zeros if the chunk cannot be decoded."""
    end_us = min(row["chunk_end_us"], row["chunk_start_us"] + SAMPLED_US)
    short = row | {"chunk_end_us": end_us}
    decoder(short | {"chunk_end_us": min(end_us, row["chunk_start_us"] + 1)})  # starts the decoder's process
    started_s = time.perf_counter()
    decoded = decoder(short)
    taken_s = time.perf_counter() - started_s
    if decoded["error"]:
        return 0.0, 0.0, 0
    return (end_us - row["chunk_start_us"]) / MICROSECONDS, taken_s, decoded["num_bytes"]
