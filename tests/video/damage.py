"""Damaged copies of valid videos, and what decoders may return for them; sandboxes import this module by name."""

import io
import random
from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from microaction.video import DecodeError, Framing, decode_chunk, decode_frames, probe
from microaction.video.decode import BackendName
from microaction.video.decoding.bitstream import structure_of
from microaction.video.decoding.formats import COUNTED_FORMATS, container_format
from microaction.video.decoding.picture import Orientation, Picture
from microaction.video.windows import Span
from tests.video import matrix, splices

KINDS = ("cut", "flip", "remove", "insert", "blank", "splice", "repeat")
# A frame may be shown at another time than before: in what has no index, the clock starts again, and the timeline goes on.
MOVING_KINDS, MOVING_FORMATS = ("splice", "repeat"), ("mpegts", "mpeg", "flv", "asf", "mxf")
FRAMING = Framing(matrix.HEIGHT, matrix.HEIGHT)
CASES_PER_DURATION_CHECK = 4
WINDOW_US, NUM_WINDOWS = 100_000, 23
# Half a frame after a frame begins, so that no rounding of times decides which frame is on the screen.
WINDOWS = [Span(WINDOW_US * i, WINDOW_US * i + 33_333) for i in range(NUM_WINDOWS)]


class DecodedFrame(NamedTuple):
    """A frame, whether the decoder reported no damage that affects it, and its place in the order of decoding."""

    start_s: Fraction
    image: np.ndarray
    is_undamaged: bool
    order: int


Frames = list[DecodedFrame]
"""Decoded frames by time."""


def damaged(data: bytes, rng: random.Random, kind: str) -> bytes:
    """Return a copy that is cut short, has bits flipped, bytes removed, bytes inserted from elsewhere, or bytes zeroed.

    A splice joins the file's beginning, up to any packet, with its end, from any packet on: times jump or start again. With
    "repeat", frames have the time of the frame before them; in AVI, which has no times, their chunks are empty.
    """
    size = len(data)
    copy, offset = bytearray(data), rng.randrange(size)
    if kind == "cut":
        del copy[offset:]
    elif kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 8))):
            copy[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "remove":
        del copy[offset : offset + rng.randrange(1, size // 4)]
    elif kind == "insert":
        other = rng.randrange(size)
        copy[offset:offset] = data[other : other + rng.randrange(1, size // 4)]
    elif kind == "splice":
        positions = splices.packet_positions(data)
        copy[rng.choice(positions) :] = data[rng.choice(positions) :]
    elif kind == "repeat":
        return splices.with_repeated_times(data, rng)
    else:
        length = rng.randrange(1, size // 8)
        copy[offset : offset + length] = bytes(len(copy[offset : offset + length]))
    return bytes(copy)


@lru_cache(maxsize=1)
def _original(path: str) -> tuple[bytes, Frames]:
    data = Path(path).read_bytes()
    return data, decode_all(data)


def decode_all(data: bytes) -> Frames:
    """Decode every frame of a file in the simplest way.

    A frame counts as undamaged if no damage was reported for it, nor for any packet of its GOP that was decoded before it and
    that other frames refer to.
    """
    format_name = container_format(data[:4096])
    found: list[tuple[int, int, np.ndarray]] = []
    damaged_packets: set[int] = set()
    disposable_packets: set[int] = set()
    number, gop_start = 0, 0
    number_of: dict[int | None, int] = {}
    gop_start_of: dict[int, int] = {}
    with av.open(io.BytesIO(data), "r", format=format_name, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if stream.codec_context.name == "mjpeg":
            stream.codec_context.options = {"err_detect": "explode"}
        origin, tick_s = stream.start_time or 0, stream.time_base or Fraction(1)
        rate = stream.average_rate or Fraction(matrix.FPS)
        structure = None
        if format_name in ("mov", "matroska"):
            structure = structure_of(stream.codec_context.name, stream.codec_context.extradata)
        try:
            for packet in container.demux(stream):
                if packet.size:
                    number += 1
                    gop_start = number if packet.is_keyframe else gop_start
                    number_of[packet.pts], gop_start_of[number] = number, gop_start
                    if structure and structure.kind_of(memoryview(packet)).is_disposable:
                        disposable_packets.add(number)
                    if packet.is_corrupt:
                        damaged_packets.add(number)
                try:
                    frames = packet.decode()
                except (av.error.FFmpegError, EOFError):
                    damaged_packets.add(number)
                    continue
                for frame in frames:
                    own = number_of.get(frame.pts, number)
                    if frame.pict_type == av.video.frame.PictureType.B and stream.codec_context.name == "mpeg2video":
                        disposable_packets.add(own)
                    if frame.is_corrupt:
                        damaged_packets.add(own)
                    time = frame.dts if format_name in COUNTED_FORMATS else frame.pts
                    if time is not None:
                        found.append((time, own, _displayed(frame, stream)))
        except (av.error.FFmpegError, EOFError):
            pass  # the frames before the error count
    if format_name in COUNTED_FORMATS:
        origin, tick_s = 0, 1 / rate
    result: Frames = []
    order = {id(each): index for index, each in enumerate(found)}
    for each in sorted(found, key=lambda each: each[0]):
        time, own, image = each
        first = gop_start_of.get(own, 0)
        is_affected = any(
            first <= packet <= own and (packet == own or packet not in disposable_packets) for packet in damaged_packets
        )
        result.append(DecodedFrame((time - origin) * tick_s, image, not is_affected, order[id(each)]))
    return result


def _displayed(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
    # A frame whose side data was asked for stays in memory until the garbage collector runs, with all that it holds.
    orientation = Orientation.of(frame) if frame.rotation else Orientation()
    image = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    return Picture.of(stream).displayed(image, orientation)


def on_screen(frames: Frames, time_s: Fraction) -> tuple[np.ndarray, bool] | None:
    """Return the framed image on the screen at a time, and whether it counts as undamaged; None if there is none."""
    if not frames:
        return None
    frame = frames[max(bisect_right([frame.start_s for frame in frames], time_s) - 1, 0)]
    image = frame.image
    return (FRAMING.square(image), frame.is_undamaged) if min(image.shape[:2]) >= matrix.HEIGHT else None


def count_results(path: str, coding: str, numbers: range) -> dict[int, dict[str, int]]:
    """Count what `decode_chunk` returns for the windows of damaged copies of a video of the matrix, by number.

    A number identifies the damage. "exact": the original frame. "refused": a reason instead of a frame. "consistent":
    not the original frame, but what a full decode of the damaged file returns without reporting damage: flipped bits
    that make another valid video. "wrong": not even that. "silent": windows that have neither frames nor a reason, and every
    undamaged second that the duration leaves out.
    """
    return {number: _count_results(path, coding, number) for number in numbers}


def _count_results(path: str, coding: str, number: int) -> dict[str, int]:
    data, original_frames = _original(path)
    rng = random.Random(f"{coding}{Path(path).suffix}{number}")
    kind = rng.choice(KINDS)
    copy = damaged(data, rng, kind)
    counts = {"exact": 0, "refused": 0, "consistent": 0, "wrong": 0, "silent": 0}
    try:
        info = probe(copy)
        span = Span(0, WINDOW_US * NUM_WINDOWS)
        chunk = decode_chunk(copy, span, WINDOWS, num_segments=1, framing=FRAMING, seek_points=info.seek_points)
    except DecodeError as error:
        return counts | {"refused" if error.reason else "silent": NUM_WINDOWS}
    decoded: Frames | None = None
    if number % CASES_PER_DURATION_CHECK == 0:
        decoded = decode_all(copy)
        counts["silent"] += int(seconds_left_out(decoded, container_format(data[:4096]) or "", info.duration_s))
    is_moving, last_place = kind in MOVING_KINDS or container_format(data[:4096]) in MOVING_FORMATS, 0
    for (row,), window in zip(chunk.window_frames_WT.tolist(), WINDOWS, strict=True):
        time_s = Fraction(window.start_us + window.end_us, 2_000_000)
        original = on_screen(original_frames, time_s)
        assert original is not None
        if row < 0:
            # Beyond the end of the video there is nothing to account for.
            counts["refused" if chunk.damage or window.start_us >= info.duration_s * 1_000_000 else "silent"] += 1
            continue
        image = chunk.frames_NHWC[row]
        if np.array_equal(image, original[0]):
            counts["exact"] += 1
            continue
        decoded = decode_all(copy) if decoded is None else decoded
        full = on_screen(decoded, time_s)
        # FFmpeg's HEVC decoder leaves the area that a damaged slice does not cover unchanged, and its VP8 decoder uses what it
        # remembers of an earlier group of pictures; neither reports it: two decodings need not agree there.
        any_pixels = coding.startswith(("hevc", "vp8"))
        is_consistent = full is not None and full[1] and (any_pixels or np.array_equal(image, full[0]))
        if not is_consistent and is_moving:
            place = next_place(image, decoded, last_place, any_pixels=any_pixels)
            is_consistent, last_place = place is not None, place or last_place
        counts["consistent" if is_consistent else "wrong"] += 1
    return counts


def seconds_left_out(frames: Frames, format_name: str, duration_s: float) -> float:
    """Return how many seconds of undamaged frames lie beyond a duration.

    Where a clock may start again, frames are counted: if it steps back by less than a second, some moments are shown twice.
    """
    undamaged = [frame for frame in frames if frame.is_undamaged]
    if format_name in MOVING_FORMATS:
        return max(len(undamaged) / matrix.FPS - duration_s, 0)
    return max(max((float(frame.start_s) for frame in undamaged), default=0) - duration_s, 0)


def next_place(image: np.ndarray, frames: Frames, first: int, *, any_pixels: bool) -> int | None:
    """Return the first place, from `first` on in the order of decoding, of an undamaged frame with these pixels."""
    places = [
        frame.order
        for frame in frames
        if frame.is_undamaged
        and frame.order >= first
        and min(frame.image.shape[:2]) >= matrix.HEIGHT
        and (any_pixels or np.array_equal(FRAMING.square(frame.image), image))
    ]
    return min(places, default=None)


def compare_backend(path: str, backend: BackendName) -> str:
    """Compare every third frame that a backend returns with a full decode: "exact", "other pixels" or "refused"."""
    frames = [frame.image for frame in decode_all(Path(path).read_bytes())]
    indices = range(0, len(frames), 3)
    try:
        found = decode_frames(path, indices, backend=backend)
    except DecodeError:
        return "refused"
    return "exact" if np.array_equal(found, np.stack([frames[index] for index in indices])) else "other pixels"
