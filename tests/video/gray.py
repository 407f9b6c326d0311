"""Gray videos in many codecs and containers: frame n has luma 20 + 2·n, so pixels tell which frame is on the screen."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.video.avi import Packet
from tests.videos import FIRST_LUMA, NO_CHROMA

FPS, SIZE, NUM_FRAMES = 25, (160, 96), 100
LUMA_STEP = 2
SAMPLE_RATE, SAMPLES_PER_FRAME = 48_000, 1152
B_FRAMES = {"bf": "2", "g": "12", "qp": "4"}
LOSSY = {"bf": "2", "g": "12", "qmin": "2", "qmax": "3", "sc_threshold": "1000000000"}
NO_B_FRAMES = {"bf": "0"}


@dataclass(frozen=True)
class Track:
    """A video track: `numbers` are the gray frames that it shows at 25 frames/s, from `start_s` on."""

    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(B_FRAMES))
    numbers: Sequence[int] = range(NUM_FRAMES)
    size: tuple[int, int] = SIZE
    pix_fmt: str = "yuv420p"
    start_s: Fraction = Fraction(0)
    pixel_aspect: Fraction = Fraction(1)
    is_default: bool = True


def write(
    format_name: str,
    *tracks: Track,
    audio_s: float = 0,
    audio_codec: str = "mp2",
    options: dict[str, str] | None = None,
) -> bytes:
    """Return a file with these video tracks and, unless `audio_s` is 0, silence from 0 s on."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_name, options={"fflags": "+bitexact"} | (options or {})) as container:
        streams = [_add_stream(container, track) for track in tracks]
        packets: list[tuple[Fraction, av.Packet[Any]]] = []
        for track, stream in zip(tracks, streams, strict=True):
            packets += [(_time_s(packet), packet) for packet in _encoded(track, stream)]
        if audio_s:
            packets += [(_time_s(packet), packet) for packet in _silence(container, audio_codec, audio_s)]
        for _, packet in sorted(packets, key=lambda each: each[0]):
            container.mux(packet)
    return file.getvalue()


def _add_stream(container: av.container.OutputContainer, track: Track) -> av.VideoStream:
    stream = container.add_stream(track.codec, rate=FPS, options=track.options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = track.size
    stream.pix_fmt = track.pix_fmt
    stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
    stream.codec_context.thread_count = 1
    stream.sample_aspect_ratio = track.pixel_aspect
    if track.is_default:
        stream.disposition = Disposition.default
    return stream


def _encoded(track: Track, stream: av.VideoStream) -> "list[av.Packet[Any]]":
    first = track.start_s * FPS
    assert first.denominator == 1, "a track starts at a multiple of the frame interval"
    packets = []
    for index, number in enumerate(track.numbers):
        frame = av.VideoFrame.from_ndarray(gray_planes(number, track.size), format="yuv420p")
        frame = frame.reformat(format=track.pix_fmt)
        frame.pts, frame.time_base = int(first) + index, Fraction(1, FPS)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def gray_planes(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return the planes of gray frame `number` in yuv420p."""
    width, height = size
    planes = np.full((height * 3 // 2, width), NO_CHROMA, np.uint8)
    planes[:height] = FIRST_LUMA + LUMA_STEP * (number % NUM_FRAMES)
    return planes


def _silence(container: av.container.OutputContainer, codec: str, duration_s: float) -> "list[av.Packet[Any]]":
    stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
    assert isinstance(stream, av.AudioStream)
    packets = []
    for start in range(0, round(duration_s * SAMPLE_RATE), SAMPLES_PER_FRAME):
        samples = np.zeros((1, SAMPLES_PER_FRAME), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _time_s(packet: "av.Packet[Any]") -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def packets_of(track: Track) -> list[Packet]:
    """Return a track's packets in coded order, as chunks of an AVI: H.264 with start codes, parameters before key frames."""
    with av.open(io.BytesIO(write("avi", track)), "r") as container:
        return [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


def patched_matrix(data: bytes, matrix: Sequence[int]) -> bytes:
    """Return an MP4 with another display matrix [a, b, c, d]: x' = a·x + c·y, y' = b·x + d·y."""
    a, b, c, d = (value << 16 for value in matrix)
    start = data.index(b"tkhd") + 4 + 40  # version 0: its matrix follows 40 bytes
    assert data[start - 40] == 0
    return data[:start] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[start + 36 :]


def patched_block_times(data: bytes, changes_ms: dict[int, int]) -> bytes:
    """Return a Matroska file whose n-th video block (counted from 0) is moved by some milliseconds."""
    with av.open(io.BytesIO(data), "r") as container:
        payloads = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    result, position = bytearray(data), 0
    for number, payload in enumerate(payloads):
        position = data.index(payload, position)
        # A block: the number of its track, its time relative to the cluster as 16 bits, flags, its data.
        (time_ms,) = struct.unpack(">h", data[position - 3 : position - 1])
        result[position - 3 : position - 1] = struct.pack(">h", time_ms + changes_ms.get(number, 0))
        position += len(payload)
    return bytes(result)
