"""Frames of untrimmed video at even steps, through Ray Data: what detectors are trained and tested on.

parts of videos → decode (CPU tasks, 1:1) → frames, in the same order

Step i of a video is the span [i/8, (i+1)/8) seconds from the start of its track, and has the frame that is shown in its middle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import TaskPoolStrategy

from microaction import storage
from microaction.clips.ingest import DECODE_CPUS
from microaction.clips.sample import Augmentation
from microaction.distributed.throttling import ThrottledExecution
from microaction.errors import DecodeError, InvalidRegionError, MicroactionError, TransientError, reason_of
from microaction.preprocessing import Preprocessing
from microaction.video import FrameSampling, Framing, Region, decode_chunk, probe
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import STEP_US, Span, microseconds, num_steps_of, step_spans

PART_LIMITS = Limits(time_s=600)
PROBE_LIMITS = Limits(time_s=120)
VIDEOS_PER_TASK = 32  # a process that decodes takes a second to start
PREFETCH_PARTS = 4
PARTS_PER_WAVE = 10_000  # the driver's memory and start-up time grow with the blocks that Ray Data knows of


class VideoFacts(NamedTuple):
    """What training must know of a video's file: version, length of its track, and when that begins on the file's timeline; or
    why it cannot be read."""

    version: str
    duration_us: int
    start_us: int
    reason: str = ""

    @property
    def num_steps(self) -> int:
        """Steps of the whole video; 0 if it cannot be read."""
        return num_steps_of(self.duration_us)


@dataclass(frozen=True)
class VideoPart:
    """Some steps of a video that lasts `duration_us`; `draw` decides what is random, and of the frames only `region` counts."""

    uri: str
    steps: range
    duration_us: int
    draw: int = 0
    region: Region | None = None


class StepFrames(NamedTuple):
    """The frames of a part: each once, [N, H, W, 3] (uint8), and the row of each step's [T] (int64)."""

    frames_NHWC: np.ndarray
    row_T: np.ndarray


def probe_videos(uris: Sequence[str], wait_s: float) -> list[VideoFacts]:
    """Return the facts of videos, in their order; headers are read by tasks of the cluster.

    Raises `TransientError` for a store that cannot be reached, and Ray's error if nothing answers within `wait_s`.
    """
    probe_block = ray.remote(_probe_block).options(num_cpus=DECODE_CPUS, retry_exceptions=[TransientError])
    blocks = [uris[start : start + VIDEOS_PER_TASK] for start in range(0, len(uris), VIDEOS_PER_TASK)]
    tasks = [probe_block.remote(block) for block in blocks]
    return [facts for block in ray.get(tasks, timeout=wait_s * max(1, len(blocks))) for facts in block]


def _probe_block(uris: Sequence[str]) -> list[VideoFacts]:
    return [_probed(uri) for uri in uris]


def _probed(uri: str) -> VideoFacts:
    try:
        version = storage.version_of(uri)
        info = sandboxed(uri, PROBE_LIMITS, probe, uri)
    except TransientError:
        raise
    except FileNotFoundError:
        return VideoFacts("", 0, 0, "no such file, though the list names it")
    except (MicroactionError, RuntimeError, ValueError) as error:
        return VideoFacts("", 0, 0, reason_of(error))
    return VideoFacts(version, microseconds(info.duration_s), microseconds(info.video_start_s))


def read_steps(
    parts: Sequence[VideoPart],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    *,
    on_unreadable: Callable[[DecodeError], None] | None = None,
) -> Iterator[StepFrames | None]:
    """Decode parts, in their order. Needs a running Ray.

    Frames are cropped as in testing, or with `augmentation` as in training, all of a part alike. A part that cannot be read
    completely raises `DecodeError`; with `on_unreadable`, that is called with the error, and the part is None.
    """
    for start in range(0, len(parts), PARTS_PER_WAVE):
        yield from _read_wave(parts[start : start + PARTS_PER_WAVE], preprocessing, augmentation, on_unreadable)


def _read_wave(
    parts: Sequence[VideoPart],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    on_unreadable: Callable[[DecodeError], None] | None,
) -> Iterator[StepFrames | None]:
    table = pa.table(
        {
            "uri": [part.uri for part in parts],
            "first": pa.array([part.steps.start for part in parts], pa.int64()),
            "stop": pa.array([part.steps.stop for part in parts], pa.int64()),
            "duration_us": pa.array([part.duration_us for part in parts], pa.int64()),
            "draw": pa.array([part.draw for part in parts], pa.int64()),
            "region": pa.array([part.region for part in parts], pa.list_(pa.int32())),
        }
    )
    dataset = ray.data.from_blocks([table.slice(row, 1) for row in range(len(table))])
    # The dataset's own context: other pipelines share the process's, and their settings must not leak into this one.
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    dataset.context.raise_original_map_exception = True
    dataset.context.max_errored_blocks = 0
    dataset.context.custom_execution_callback_classes = [ThrottledExecution]
    decoded = dataset.map(
        _decode_row, fn_args=(preprocessing, augmentation), compute=TaskPoolStrategy(), num_cpus=DECODE_CPUS
    )
    num_read = 0
    for batch in decoded.iter_batches(batch_size=1, prefetch_batches=PREFETCH_PARTS, batch_format="numpy"):
        reason, part = str(batch["reason"][0]), parts[num_read]
        num_read += 1
        if not reason:
            yield StepFrames(batch["frames"][0], batch["rows"][0])
            continue
        error = DecodeError(part.uri, reason)
        if on_unreadable is None:
            raise error
        on_unreadable(error)
        yield None
    if num_read != len(parts):
        raise RuntimeError(f"{num_read} of {len(parts)} parts arrived from Ray Data: this is a bug, please report it")


def _decode_row(row: dict[str, Any], preprocessing: Preprocessing, augmentation: Augmentation | None) -> dict[str, Any]:
    region = None if row["region"] is None else Region(*(int(value) for value in row["region"]))
    part = VideoPart(row["uri"], range(row["first"], row["stop"]), row["duration_us"], row["draw"], region)
    side = preprocessing.side
    frames_NHWC, row_T, reason = np.empty((0, side, side, 3), np.uint8), np.empty(0, np.int64), ""
    try:
        frames_NHWC, row_T = load_steps(part, preprocessing, augmentation)
    except DecodeError as error:
        reason = error.reason
    except InvalidRegionError as error:
        reason = str(error)
    return {"frames": frames_NHWC, "rows": row_T, "reason": reason}


def load_steps(part: VideoPart, preprocessing: Preprocessing, augmentation: Augmentation | None = None) -> StepFrames:
    """Return the frames of a part, decoded in a separate process. Raises `DecodeError` where any of them is missing."""
    return StepFrames(*sandboxed(part.uri, PART_LIMITS, _decoded_arrays, part, preprocessing, augmentation))


@dataclass(frozen=True)
class _WholeFraming:
    """Keeps what training takes random crops from."""

    framing: Framing

    def square(self, frame_HWC: np.ndarray) -> np.ndarray:
        return self.framing.whole(frame_HWC)


def _decoded_arrays(
    part: VideoPart, preprocessing: Preprocessing, augmentation: Augmentation | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays of `StepFrames`: a process of its own returns no classes but those of errors."""
    spans = step_spans(part.steps, part.duration_us)
    framing = Framing.of(preprocessing, part.region)
    of_steps = framing if augmentation is None else _WholeFraming(framing)
    pixels = decode_chunk(
        part.uri,
        Span(spans[0].start_us, spans[-1].start_us + STEP_US),
        spans,
        sampling=FrameSampling(1),
        framings=[of_steps] * len(spans),
    )
    if pixels.damage:
        raise DecodeError(part.uri, pixels.damage)
    frames_NHWC = pixels.frames_NHWC
    if augmentation is not None:
        rng = np.random.default_rng((augmentation.seed, augmentation.epoch, part.draw))
        height, width = frames_NHWC.shape[1:3]
        crop = augmentation.crop(height, width, rng)
        frames_NHWC = augmentation.changed(crop.of(frames_NHWC, preprocessing.crop), preprocessing.padding_color, rng)
    return frames_NHWC, pixels.window_frames_WT[:, 0].astype(np.int64)
