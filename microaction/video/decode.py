"""Frames of a video as arrays: by index for clips, by time for chunks of long videos.

Shapes: N frames, W windows, T frames of a window, H height, W width, C = 3 (RGB, 0..255).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding import av_backend, decord_backend, torchcodec_backend
from microaction.video.decoding.av_backend import Transform
from microaction.video.decoding.container import open_video
from microaction.video.decoding.picture import Orientation, Picture
from microaction.video.decoding.sources import Source, name_of, open_counted
from microaction.video.decoding.timeline import SeekPoint
from microaction.video.framing import Framing
from microaction.video.sampling import FrameSampling
from microaction.video.transforms import resize_short_side
from microaction.video.windows import Span

BackendName = Literal["auto", "av", "decord", "torchcodec"]

FramesAtIndices = Callable[[Source, Sequence[int], Transform], Iterator[np.ndarray]]
"""A backend: yields the transformed RGB frames [H, W, 3], rotated by the display matrix, at ascending, distinct indices."""

_BACKENDS: dict[str, FramesAtIndices] = {
    "auto": av_backend.frames_at_indices,  # the fastest of the exact ones: `make bench`
    "av": av_backend.frames_at_indices,
    "decord": decord_backend.frames_at_indices,
    "torchcodec": torchcodec_backend.frames_at_indices,
}


def decode_frames(
    source: Source,
    indices: Sequence[int],
    short_side: int | None = None,
    backend: BackendName = "auto",
    *,
    transform: Transform | None = None,
) -> np.ndarray:
    """Return frames [N, H, W, 3] (uint8 RGB) of a video, in the order of `indices`; repeats are allowed.

    Indices count frames in presentation order from 0. `source` is a path, a URI, the content of a file, or an open
    file. `short_side` resizes each frame (bilinear, aspect ratio kept); `transform` is applied to each frame instead.
    Without either, frames have the video's size. The display matrix (rotation) is applied.

    Raises `DecodeError` if the video cannot be read, is damaged before or at one of the frames, or has fewer frames;
    `ValueError` for an index < 0, an unknown backend, or both `short_side` and `transform`.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"backend ({backend!r}) must be one of {', '.join(_BACKENDS)}")
    if short_side is not None and transform is not None:
        raise ValueError(f"short_side ({short_side}) and transform exclude each other: let transform resize")
    order = np.asarray(indices, dtype=np.int64)
    if order.ndim != 1 or len(order) == 0:
        raise ValueError(f"indices of shape {order.shape} must be a list of at least one frame number")
    if order.min() < 0:
        raise ValueError(f"index ({order.min()}) must be ≥ 0: frames are counted from the beginning of the video")
    distinct, inverse = np.unique(order, return_inverse=True)

    def resized(frame: np.ndarray) -> np.ndarray:
        return frame if short_side is None else resize_short_side(frame, short_side)

    chosen = transform or resized
    if backend in ("decord", "torchcodec"):
        chosen = _with_square_pixels(source, chosen)
    frames = list(_BACKENDS[backend](source, distinct.tolist(), chosen))
    return _stack(frames, name_of(source))[inverse]


def decode_at_times(source: Source, times_s: Sequence[Fraction], transform: Transform) -> np.ndarray:
    """Return the transformed frames [N, H, W, 3] (uint8 RGB) that are on the screen at the ascending, distinct `times_s`.

    Times count from the start of the video track. Reads only the video's index and the bytes of those frames, where it has an
    index. Raises `DecodeError`, also if one of the frames cannot be decoded.
    """
    images: dict[int, np.ndarray] = {}
    for first, last, image, reason in av_backend.frames_at_times(source, times_s, transform):
        if image is None:
            raise DecodeError(name_of(source), reason)
        images.update((number, image) for number in range(first, last + 1))
    return _stack([images[number] for number in range(len(times_s))], name_of(source))


class WindowFraming(Protocol):
    """Cuts the frames of one window."""

    def square(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return what the network sees of a frame [H, W, 3] (uint8, RGB)."""
        ...


@dataclass(frozen=True)
class ChunkFrames:
    """The pixels that a chunk's windows need: each frame once, and an index of the T frames of each window.

    frames_NHWC: uint8 RGB at the model's size.
    window_frames_WT: int32 rows of `frames_NHWC`; all −1 for a window with a frame that could not be decoded.
    damage: why there are such windows; empty if there are none.
    num_bytes: bytes read from the file.
    """

    frames_NHWC: np.ndarray
    window_frames_WT: np.ndarray
    damage: str = ""
    num_bytes: int = 0


def decode_chunk(
    source: Source,
    span: Span,
    windows: Sequence[Span],
    *,
    num_segments: int = 8,
    sampling: FrameSampling | None = None,
    framing: Framing | None = None,
    framings: Sequence[WindowFraming] | None = None,
    seek_points: Sequence[SeekPoint] = (),
) -> ChunkFrames:
    """Decode the frames of the windows that start in `span`, each once, in one pass.

    Times count from the start of the video track (`VideoInfo.video_start_s`). Reads only the video's index and the bytes of
    those frames. A stream without an index needs the `seek_points` of `probe` for that: without them, it is decoded from its
    beginning. From each window, T = `num_segments` frames are taken: those on the screen in the middle of its T equal parts.
    At a constant frame rate that is the reference's rule for testing, `segment_indices(n)`. With `sampling`, that rule is
    applied instead. With `framings`, one for each window, a frame is cut otherwise for each framing of windows that it is in:
    windows with the same object share its frames. Windows may extend past the end of the span, and are complete.

    Of a damaged video, the undamaged windows are returned: frames count as damaged from the first packet that cannot be
    decoded up to the next random access point. Raises `DecodeError` if no window is left, `ValueError` if `windows` is
    empty or a window starts outside the span.
    """
    if not windows:
        raise ValueError("windows must not be empty: a chunk without windows needs no decoding")
    for window in windows:
        if not span.start_us <= window.start_us < span.end_us:
            raise ValueError(
                f"the window at {window.start_s} s must start in the span {span.start_s} s to {span.end_s} s"
            )
    sampling = sampling or FrameSampling(num_segments)
    times_WT = [sampling.window_times(window) for window in windows]
    of_windows = [framing or Framing()] * len(windows) if framings is None else framings
    number_of: dict[int, int] = {}
    framing_W = [number_of.setdefault(id(of_window), len(number_of)) for of_window in of_windows]
    distinct = [of_windows[framing_W.index(number)] for number in range(len(number_of))]
    times_F: list[set[Fraction]] = [set() for _ in distinct]
    for number, times_T in zip(framing_W, times_WT, strict=True):
        times_F[number].update(times_T)
    times_s = sorted(set().union(*times_F))
    frames: list[np.ndarray] = []
    row_of: dict[tuple[int, Fraction], int] = {}
    damage = ""
    with open_counted(source) as file:
        # One framing cuts frames where they are decoded; several need them whole for a moment.
        to_image = distinct[0].square if len(distinct) == 1 else np.copy
        for first, last, image, reason in av_backend.frames_at_times(file, times_s, to_image, seek_points):
            if image is None:
                damage = damage or reason
                continue
            shown = times_s[first : last + 1]
            for number, (cut, times) in enumerate(zip(distinct, times_F, strict=True)):
                here = times.intersection(shown)
                if here:
                    row_of.update(((number, time), len(frames)) for time in here)
                    frames.append(image if len(distinct) == 1 else cut.square(image))
        num_bytes = file.num_bytes
    window_frames_WT = np.full((len(windows), sampling.num_sampled), -1, np.int32)
    for window_number, (number, times_T) in enumerate(zip(framing_W, times_WT, strict=True)):
        keys = [(number, time) for time in times_T]
        if all(key in row_of for key in keys):
            window_frames_WT[window_number] = [row_of[key] for key in keys]
    assert bool(damage) == bool((window_frames_WT < 0).any()), "missing frames have a reason"
    if damage and (window_frames_WT < 0).all():
        raise DecodeError(name_of(source), damage)
    return ChunkFrames(_stack(frames, name_of(source)), window_frames_WT, damage, num_bytes)


def window_times(window: Span, num_segments: int) -> list[Fraction]:
    """Return the midpoints of a window's T equal parts as exact fractions of a second."""
    return FrameSampling(num_segments).window_times(window)


def _with_square_pixels(source: Source, transform: Transform) -> Transform:
    """Return the transform for frames of a backend that applies the display matrix, but not the sample aspect ratio."""
    with open_video(source) as video:
        picture = Picture.of(video.stream)
        first = next(iter(video.container.decode(video.stream)), None)
    if picture.sample_aspect == 1 or first is None:
        return transform
    if Orientation.of(first).rotation in (90, 270):
        picture = Picture(1 / picture.sample_aspect)
    return lambda frame: transform(picture.displayed(frame, Orientation()))


def _stack(frames: list[np.ndarray], uri: str) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise DecodeError(uri, "its frames change size midway, which is not supported")
    return np.stack(frames)
