"""Which frame of a gray video is on the screen at which time, by its pixels: frame n has luma 20 + 2·n."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from microaction.video import ChunkFrames, DecodeError, Framing, VideoInfo, decode_chunk, probe
from microaction.video.decode import window_times
from microaction.video.decoding.sources import Source
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows
from tests.video.grids import split_chunks
from tests.videos import BLACK_LUMA, FIRST_LUMA, LUMA_LEVELS

LUMA_STEP, NUM_LEVELS = 2, 100  # frame 100 has the luma of frame 0 again
NUM_SEGMENTS = 8
WINDOW_US, STRIDE_US, CHUNK_US = 2 * MICROSECONDS, MICROSECONDS, 1_500_000
FRAMING = Framing(48, 40)


def gray_number(frame_HWC: np.ndarray) -> int:
    """Return the number of a gray frame, 0 to 99."""
    H, W = frame_HWC.shape[:2]
    gray = float(frame_HWC[H // 4 : -H // 4, W // 4 : -W // 4].mean())
    # +0.25: where the pixels of the file are of full range, the conversion to RGB is exact; elsewhere it rounds down.
    return round(((gray + 0.25) * LUMA_LEVELS / 255 + BLACK_LUMA - FIRST_LUMA) / LUMA_STEP)


@dataclass(frozen=True)
class Screens:
    """What decoding returned for all windows of a video: per window, the times of its frames and their numbers.

    Times are relative to the start of the picture track; a window that could not be decoded has no numbers.
    """

    info: VideoInfo
    windows: list[Span]
    times_s: list[list[Fraction]]
    numbers: list[list[int]]
    damage: list[str]

    @property
    def missing(self) -> list[Span]:
        """The windows without frames."""
        return [window for window, numbers in zip(self.windows, self.numbers, strict=True) if not numbers]


def decoded_chunks(source: Source, info: VideoInfo, chunk_us: int = CHUNK_US) -> list[tuple[list[Span], ChunkFrames]]:
    """Decode all windows of 2 s every second, chunk by chunk, as labeling does; a chunk without any frame has no pixels."""
    duration_us = microseconds(info.duration_s)
    chunks = []
    for span in split_chunks(duration_us, chunk_us):
        windows = split_windows(duration_us, WINDOW_US, STRIDE_US, span)
        if not windows:
            continue
        try:
            found = decode_chunk(
                source,
                span,
                windows,
                num_segments=NUM_SEGMENTS,
                framing=FRAMING,
                seek_points=info.seek_points,
            )
        except DecodeError as error:
            missing = np.full((len(windows), NUM_SEGMENTS), -1, np.int32)
            found = ChunkFrames(np.empty((0, FRAMING.crop, FRAMING.crop, 3), np.uint8), missing, error.reason)
        chunks.append((windows, found))
    return chunks


def screens_of(source: Source, chunk_us: int = CHUNK_US) -> Screens:
    """Return which frames are on the screen in all windows of a video. Raises `DecodeError` if it cannot be opened."""
    info = probe(source)
    screens = Screens(info, [], [], [], [])
    for windows, chunk in decoded_chunks(source, info, chunk_us):
        numbers = [gray_number(frame) for frame in chunk.frames_NHWC]
        for window, row in zip(windows, chunk.window_frames_WT.tolist(), strict=True):
            screens.windows.append(window)
            screens.times_s.append(window_times(window, NUM_SEGMENTS))
            screens.numbers.append([] if min(row) < 0 else [numbers[index] for index in row])
        if chunk.damage:
            screens.damage.append(chunk.damage)
    return screens


def check_screens(screens: Screens, slots: Sequence[int | None], fps: Fraction | int = 25) -> None:
    """Check the frame on the screen at every time of every decoded window.

    `slots` says which frame is on the screen during each frame interval; None where more than one is right.
    """
    for times_s, numbers in zip(screens.times_s, screens.numbers, strict=True):
        for time_s, number in zip(times_s, numbers, strict=bool(numbers)):
            expected = slots[min(int(time_s * fps), len(slots) - 1)]
            assert expected in (None, number), f"frame {number} is shown at {float(time_s)} s instead of {expected}"
