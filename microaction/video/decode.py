"""Frames of a video as arrays: by index for clips, by time for the chunks of long videos.

Shapes: N frames, W windows, T frames of a window, H height, W width, C = 3 (RGB, 0..255).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from microaction.video import av_backend, decord_backend
from microaction.video.container import DecodeError, Source, name_of
from microaction.video.transforms import center_crop, resize_short_side
from microaction.video.windows import MICROSECONDS, Span

BackendName = Literal["auto", "av", "decord"]

FramesAtIndices = Callable[[Source, Sequence[int]], Iterator[np.ndarray]]
"""A backend: RGB frames [H, W, 3], rotated for showing, at ascending distinct indices in presentation order."""

_BACKENDS: dict[str, FramesAtIndices] = {
    "auto": av_backend.frames_at_indices,
    "av": av_backend.frames_at_indices,
    "decord": decord_backend.frames_at_indices,
}


def decode_frames(
    source: Source, indices: Sequence[int], short_side: int | None = None, backend: BackendName = "auto"
) -> np.ndarray:
    """Frames [N, H, W, 3] (uint8 RGB) of a video, in the order of `indices`; repeats are allowed.

    Indices count frames in presentation order from 0. `source` is a path, a URI, a file's content or an open file.
    `short_side` resizes each frame (bilinear, aspect kept); without it frames have the video's size. Rotation metadata is
    applied. Raises `DecodeError` where the video cannot be read or has fewer frames, `ValueError` for an index < 0 or an
    unknown backend.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"backend ({backend!r}) must be one of {', '.join(_BACKENDS)}")
    order = np.asarray(indices, dtype=np.int64)
    if order.ndim != 1 or len(order) == 0:
        raise ValueError(f"indices of shape {order.shape} must be a list of at least one frame number")
    if order.min() < 0:
        raise ValueError(f"index ({order.min()}) must be ≥ 0: frames count from the video's beginning")
    distinct, inverse = np.unique(order, return_inverse=True)
    frames = [
        frame if short_side is None else resize_short_side(frame, short_side)
        for frame in _BACKENDS[backend](source, distinct.tolist())
    ]
    return _stack(frames, name_of(source))[inverse]


@dataclass(frozen=True)
class ChunkFrames:
    """The pixels that a chunk's windows need: each frame once, and which T of them make each window.

    frames_NHWC: uint8 RGB, resized and centre-cropped to the model's input.
    window_frames_WT: int32, rows of `frames_NHWC`.
    """

    frames_NHWC: np.ndarray
    window_frames_WT: np.ndarray


def decode_chunk(
    source: Source, windows: Sequence[Span], duration_us: int, num_segments: int, short_side: int, crop: int
) -> ChunkFrames:
    """Decodes what a chunk's windows need, once, in one pass.

    From each window T = `num_segments` frames are taken: those on the screen in the middle of its T equal parts. At a
    constant rate that is the reference's rule for testing, `segment_indices(n)`. Windows that reach past the chunk are
    whole. `duration_us` is the video's length by its index. Raises `DecodeError` where any needed frame is missing.
    """
    if not windows:
        raise ValueError("windows must not be empty: a chunk without windows needs no decoding")
    times_s = sorted({time for window in windows for time in window_times(window, num_segments)})
    frames: list[np.ndarray] = []
    row_of: dict[Fraction, int] = {}
    last_number = -1
    stream = av_backend.frames_at_times(source, times_s, Fraction(duration_us, MICROSECONDS))
    for time_s, (number, frame) in zip(times_s, stream, strict=True):
        if number != last_number:
            frames.append(center_crop(resize_short_side(frame, short_side), crop))
            last_number = number
        row_of[time_s] = len(frames) - 1
    return ChunkFrames(
        frames_NHWC=_stack(frames, name_of(source)),
        window_frames_WT=np.array(
            [[row_of[time] for time in window_times(window, num_segments)] for window in windows], dtype=np.int32
        ),
    )


def window_times(window: Span, num_segments: int) -> list[Fraction]:
    """The middles of a window's T equal parts, in seconds, exactly."""
    length = window.end_us - window.start_us
    return [
        Fraction(2 * num_segments * window.start_us + (2 * i + 1) * length, 2 * num_segments * MICROSECONDS)
        for i in range(num_segments)
    ]


def _stack(frames: list[np.ndarray], uri: str) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise DecodeError(uri, "its frames change size midway, which is not supported")
    return np.stack(frames)
