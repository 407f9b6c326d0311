"""Damaged copies of valid videos, and what may be made of them at most; sandboxes import it by name."""

import io
import random
import tempfile
from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from microaction.video import DecodeError, Framing, decode_chunk, decode_frames, probe
from microaction.video.decode import BackendName
from microaction.video.decoding.bitstream import structure_of
from microaction.video.decoding.formats import COUNTED_FORMATS, container_format
from microaction.video.windows import Span
from tests.video import matrix

KINDS = ("cut", "flip", "remove", "insert", "blank")
FRAMING = Framing(matrix.HEIGHT, matrix.HEIGHT)
WINDOW_US, NUM_WINDOWS = 100_000, 23
# Half a frame after a frame begins, so that no rounding of times decides.
WINDOWS = [Span(WINDOW_US * i, WINDOW_US * i + 33_333) for i in range(NUM_WINDOWS)]

Frames = list[tuple[Fraction, np.ndarray, bool]]
"""When each is shown, its pixels, and whether the decoder had nothing to say against it; by time."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy that is cut, has bits flipped, bytes removed, inserted from elsewhere, or blanked."""
    kind, size = rng.choice(KINDS), len(data)
    copy, place = bytearray(data), rng.randrange(size)
    if kind == "cut":
        del copy[place:]
    elif kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 8))):
            copy[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "remove":
        del copy[place : place + rng.randrange(1, size // 4)]
    elif kind == "insert":
        other = rng.randrange(size)
        copy[place:place] = data[other : other + rng.randrange(1, size // 4)]
    else:
        length = rng.randrange(1, size // 8)
        copy[place : place + length] = bytes(len(copy[place : place + length]))
    return bytes(copy)


@lru_cache(maxsize=1)
def original(coding: str, suffix: str) -> tuple[bytes, Frames]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v{suffix}"
        matrix.write(path, coding, "constant")
        data = path.read_bytes()
    return data, everything(data)


def everything(data: bytes) -> Frames:
    """All frames of a file by a plain full decode. A frame is sound if neither it nor, in its group of pictures, anything
    decoded before it that others refer to was reported damaged.
    """
    format_name = container_format(data[:4096])
    found: list[tuple[int, int, np.ndarray]] = []
    damaged_packets: set[int] = set()
    unimportant: set[int] = set()
    number, group = 0, 0
    number_of: dict[int | None, int] = {}
    group_of: dict[int, int] = {}
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
                    group = number if packet.is_keyframe else group
                    number_of[packet.pts], group_of[number] = number, group
                    if structure and structure.kind_of(memoryview(packet)).disposable:
                        unimportant.add(number)
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
                        unimportant.add(own)
                    if frame.is_corrupt:
                        damaged_packets.add(own)
                    time = frame.dts if format_name in COUNTED_FORMATS else frame.pts
                    if time is not None:
                        found.append((time, own, frame.to_ndarray(format="rgb24")))
        except (av.error.FFmpegError, EOFError):
            pass  # what came before counts
    if format_name in COUNTED_FORMATS:
        origin, tick_s = 0, 1 / rate
    result: Frames = []
    for time, own, image in sorted(found, key=lambda each: each[0]):
        first = group_of.get(own, 0)
        hurt = any(first <= hit <= own and (hit == own or hit not in unimportant) for hit in damaged_packets)
        result.append(((time - origin) * tick_s, image, not hurt))
    return result


def on_screen(frames: Frames, time_s: Fraction) -> tuple[np.ndarray, bool] | None:
    if not frames:
        return None
    _, image, is_sound = frames[max(bisect_right([start for start, _, _ in frames], time_s) - 1, 0)]
    return (FRAMING.square(image), is_sound) if min(image.shape[:2]) >= matrix.HEIGHT else None


def outcome(coding: str, suffix: str, number: int) -> dict[str, int]:
    """What becomes of the windows of the damaged copy of this number: right, refused, or wrong in one of two ways.

    "as it says": not what was filmed, but what a full decode of this very file gives without any complaint: flipped bits that
    make another valid video. "silently wrong": what even that does not give.
    """
    data, filmed = original(coding, suffix)
    copy = damaged(data, random.Random(f"{coding}{suffix}{number}"))
    counts = {"right": 0, "refused": 0, "as it says": 0, "silently wrong": 0}
    try:
        probe(copy)
        found = decode_chunk(copy, Span(0, WINDOW_US * NUM_WINDOWS), WINDOWS, num_segments=1, framing=FRAMING)
    except DecodeError:
        return counts | {"refused": NUM_WINDOWS}
    decoded: Frames | None = None
    for (row,), window in zip(found.window_frames_WT.tolist(), WINDOWS, strict=True):
        time_s = Fraction(window.start_us + window.end_us, 2_000_000)
        truth = on_screen(filmed, time_s)
        assert truth is not None
        if row < 0:
            counts["refused"] += 1
            continue
        image = found.frames_NHWC[row]
        if np.array_equal(image, truth[0]):
            counts["right"] += 1
            continue
        decoded = everything(copy) if decoded is None else decoded
        said = on_screen(decoded, time_s)
        # FFmpeg's HEVC decoder leaves what a damaged slice does not cover as it finds it, and does not say so: no two
        # decodings need agree there.
        is_said = said is not None and said[1] and (coding.startswith("hevc") or np.array_equal(image, said[0]))
        counts["as it says" if is_said else "silently wrong"] += 1
    return counts


def agreement(path: str, backend: BackendName) -> str:
    """How every third frame by a backend compares with a full decode."""
    truth = [image for _, image, _ in everything(Path(path).read_bytes())]
    rotated = "rotation" in path
    indices = range(0, len(truth), 3)
    try:
        found = decode_frames(path, indices, backend=backend)
    except DecodeError:
        return "refused"
    wanted = [np.rot90(truth[index], k=3) if rotated else truth[index] for index in indices]
    return "exact" if np.array_equal(found, np.stack(wanted)) else "other pixels"
