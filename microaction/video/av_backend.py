"""Decoding with PyAV: one pass over a video, frames in presentation order with their times.

Single-threaded: cores are used by decoding several videos at once.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from microaction.video.container import (
    COUNTED_FORMATS,
    SEEKABLE_FORMATS,
    DecodeError,
    OpenVideo,
    Source,
    clockwise_rotation,
    open_video,
    time_base,
)

DECODER = f"av {av.__version__}"


def frames_at_indices(source: Source, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """RGB frames [H, W, 3] at the ascending, distinct `indices`, counted in presentation order.

    Raises `DecodeError` where the video ends before the last of them.
    """
    with open_video(source) as video:
        to_rgb = RgbConverter()
        wanted = iter(indices)
        target = next(wanted, None)
        num_frames = 0
        for index, frame in enumerate(_decode(video)):
            if target is None:
                return
            num_frames = index + 1
            if index == target:
                yield to_rgb(frame)
                target = next(wanted, None)
        if target is not None:
            raise DecodeError(video.uri, f"frame {target} was asked for and only {num_frames} could be decoded")


def frames_at_times(source: Source, times_s: Sequence[Fraction], end_s: Fraction) -> Iterator[tuple[int, np.ndarray]]:
    """For each of the ascending `times_s`, the frame that is on the screen then, as RGB [H, W, 3].

    Yields (number of the frame, frame) once for each frame that is wanted, then (number, empty array) for each further
    time that falls on the same frame; numbers ascend from anywhere. The frame on the screen at t is the last one with a
    presentation time ≤ t, or the first frame. `end_s` is where the video ends by its index: a time before it for which
    the data ran out more than one frame early raises `DecodeError`.
    """
    with open_video(source) as video:
        to_rgb = RgbConverter()
        pending = list(times_s)[::-1]
        current: av.VideoFrame | None = None
        current_end_s = Fraction(0)
        number = -1
        for start_s, frame_s, frame in _timed_frames(video, times_s[0]):
            if current is not None:
                yield from _emit(number, current, to_rgb, pending, before_s=start_s)
            if not pending:
                return
            number, current, current_end_s = number + 1, frame, start_s + frame_s
        if current is None:
            raise DecodeError(video.uri, f"nothing could be decoded at {float(times_s[0]):.3f} s or after it")
        # The last frame stays until its own end; half a frame more forgives clocks that round.
        slack_s = (frame_s or Fraction(0)) / 2
        if pending and pending[0] < end_s and pending[0] >= current_end_s + slack_s:
            raise DecodeError(
                video.uri,
                f"cut short or damaged: the last frame that could be decoded ends at {float(current_end_s):.3f} s of "
                f"{float(end_s):.3f} s",
            )
        yield from _emit(number, current, to_rgb, pending, before_s=None)


def _emit(
    number: int, frame: av.VideoFrame, to_rgb: "RgbConverter", pending: list[Fraction], before_s: Fraction | None
) -> Iterator[tuple[int, np.ndarray]]:
    image: np.ndarray | None = None
    while pending and (before_s is None or pending[-1] < before_s):
        pending.pop()
        if image is None:
            image = to_rgb(frame)
            yield number, image
        else:
            yield number, _SAME_FRAME


_SAME_FRAME = np.empty((0, 0, 3), dtype=np.uint8)


def _timed_frames(video: OpenVideo, from_s: Fraction) -> Iterator[tuple[Fraction, Fraction, av.VideoFrame]]:
    """(start, length, frame) in seconds, ascending, from a frame on the screen at `from_s` or before."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    nominal_s = 1 / Fraction(rate) if rate else Fraction(0)
    if video.format in COUNTED_FORMATS:
        if not rate:
            raise DecodeError(video.uri, "it does not say how many frames a second has")
        for index, frame in enumerate(_decode(video)):
            yield index * nominal_s, nominal_s, frame
        return
    if video.format in SEEKABLE_FORMATS:
        _seek_before(video, from_s)
    tick_s = time_base(video.stream)
    next_s = Fraction(0)
    for frame in _decode(video):
        start_s = next_s if frame.pts is None else frame.pts * tick_s - video.origin
        length_s = frame.duration * tick_s if frame.duration else nominal_s
        yield start_s, length_s, frame
        next_s = start_s + length_s


def _seek_before(video: OpenVideo, time_s: Fraction) -> None:
    """Goes to a key frame that is shown at or before `time_s`; all frames shown after it decode without older ones."""
    tick_s = time_base(video.stream)
    target = int((time_s + video.origin) / tick_s)
    tick = target
    first = video.stream.start_time or 0
    while tick > first:
        video.container.seek(tick, stream=video.stream, backward=True)
        key = next((packet for packet in video.container.demux(video.stream) if packet.size), None)
        if key is not None and key.pts is not None and key.pts <= target:
            break
        # The index goes by decoding time: with B-frames the key frame found may be shown after the target.
        earlier = tick - int(1 / tick_s) if key is None or key.dts is None else min(key.dts, tick) - 1
        tick = earlier
    video.container.seek(max(tick, first), stream=video.stream, backward=True)


def _decode(video: OpenVideo) -> Iterator[av.VideoFrame]:
    for frame in video.container.decode(video.stream):
        if frame.is_corrupt:
            raise DecodeError(video.uri, f"damaged: frame at {float(frame.time or 0):.3f} s cannot be decoded")
        yield frame


class RgbConverter:
    """Turns decoded frames into RGB [H, W, 3], turned the way they are meant to be shown.

    One for each pass over a video: the conversion is set up once, and runs on the decoder's thread. FFmpeg's default, a
    thread per core for every frame, costs a hundred times the work itself where all cores are decoding.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        image: np.ndarray = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = clockwise_rotation(frame) // 90
        return np.ascontiguousarray(np.rot90(image, k=-turns)) if turns else image
