"""The matrix: small videos in many codecs, containers and timings. Each frame is a different part of one textured image."""

import fcntl
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # errors only

NUM_FRAMES, FPS, WIDTH, HEIGHT = 70, 30, 96, 64


@dataclass(frozen=True)
class Coding:
    """An encoder and its options."""

    codec: str
    options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    reorders: bool = True  # AVI holds only streams that do not


def x264(params: str, **options: str) -> Coding:
    """Return H.264 with parameters of x264."""
    # mbtree=0: with mbtree, x264 reads uninitialized memory, and two encodings may differ.
    return Coding("libx264", {"x264-params": f"{params}:mbtree=0", **options}, reorders="bframes=0" not in params)


CODINGS = {
    "h264-b-pyramid": x264("keyint=24:min-keyint=24:bframes=3:b-pyramid=normal:b-adapt=0:scenecut=0"),
    "h264-b-strict": x264("keyint=20:min-keyint=20:bframes=5:b-pyramid=strict:b-adapt=0:scenecut=0:ref=4"),
    "h264-no-b": x264("keyint=24:bframes=0:ref=3"),
    "h264-open-gop": x264("keyint=12:min-keyint=12:bframes=3:open-gop=1:b-adapt=0:scenecut=0"),
    "h264-long-gop": x264("keyint=1000:bframes=3"),
    "h264-intra": x264("keyint=1:bframes=0"),
    "h264-refresh": x264("keyint=20:intra-refresh=1:bframes=0"),
    "h264-10-bit": Coding("libx264", {"g": "24", "bf": "3"}, "yuv420p10le"),
    "h264-interlaced": x264("keyint=24:bframes=2:interlaced=1:tff=1"),
    "h264-weighted": x264("keyint=24:bframes=3:weightp=2:weightb=1:direct=temporal:slices=3"),
    "hevc": Coding("libx265", {"x265-params": "keyint=20:min-keyint=20:bframes=4:open-gop=0:log-level=none"}),
    "hevc-open-gop": Coding("libx265", {"x265-params": "keyint=20:min-keyint=20:bframes=4:open-gop=1:log-level=none"}),
    "hevc-layers": Coding("libx265", {"x265-params": "keyint=20:bframes=4:temporal-layers=3:log-level=none"}),
    "hevc-10-bit": Coding("libx265", {"x265-params": "keyint=20:log-level=none"}, "yuv420p10le"),
    "vp9": Coding(
        "libvpx-vp9", {"g": "20", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}, reorders=False
    ),
    "av1": Coding("libsvtav1", {"preset": "12", "g": "20", "svtav1-params": "lp=1"}, reorders=False),
    "mpeg2": Coding("mpeg2video", {"g": "12", "bf": "2", "b": "2000000"}),
    "mpeg4": Coding("mpeg4", {"g": "12", "bf": "2", "b": "2000000"}),
    "mpeg4-no-b": Coding("mpeg4", {"g": "12", "bf": "0", "b": "2000000"}, reorders=False),
    "mjpeg": Coding("mjpeg", {"q": "3"}, "yuvj420p", reorders=False),
    "mpeg1": Coding("mpeg1video", {"g": "12", "bf": "2", "b": "2000000"}),
    "vp8": Coding("libvpx", {"g": "20", "b": "2000000", "auto-alt-ref": "1", "lag-in-frames": "16"}, reorders=False),
    "wmv2": Coding("wmv2", {"g": "12", "b": "2000000"}, reorders=False),
}
FORMATS = {
    ".mp4": "mp4",
    ".mkv": "matroska",
    ".ts": "mpegts",
    ".avi": "avi",
    ".m2ts": "mpegts",
    ".mpg": "vob",
    ".flv": "flv",
    ".wmv": "asf",
    ".mxf": "mxf",
}
MUXER_OPTIONS = {".m2ts": {"mpegts_m2ts_mode": "1"}}
# Containers that hold few codings, and codings that few containers hold: at a constant rate.
ONLY_IN = {"mpeg1": (".mpg",), "vp8": (".mkv",), "wmv2": (".wmv",)}
ONLY_CODINGS = {
    ".m2ts": ("h264-b-pyramid", "hevc"),
    ".mpg": ("mpeg1", "mpeg2"),
    ".flv": ("h264-b-pyramid",),
    ".wmv": ("wmv2",),
    ".mxf": ("mpeg2",),
}
TIMINGS = ("constant", "variable", "edit list", "rotation", "B-frames first", "fragmented")


class Case(NamedTuple):
    """One video of the matrix."""

    coding: str
    suffix: str
    timing: str

    @property
    def file_name(self) -> str:
        """The name of its file, which also identifies it in test reports."""
        return f"{self.coding}-{self.timing}{self.suffix}".replace(" ", "-")


def is_possible(coding: str, suffix: str, timing: str) -> bool:
    """Return whether the container can hold the coding, and the timing fits both."""
    codec = CODINGS[coding].codec
    if coding in ONLY_IN or suffix in ONLY_CODINGS:
        is_known = suffix in ONLY_IN.get(coding, (suffix,)) and coding in ONLY_CODINGS.get(suffix, (coding,))
        return is_known and timing == "constant"
    if suffix == ".ts" and codec in ("libvpx-vp9", "libsvtav1", "mjpeg"):
        return False
    if suffix == ".avi" and (CODINGS[coding].reorders or codec in ("libsvtav1", "libvpx-vp9")):
        return False
    return {
        "constant": True,
        "variable": True,
        "edit list": suffix == ".mp4",
        "fragmented": suffix == ".mp4",
        "rotation": suffix in (".mp4", ".mkv"),
        "B-frames first": (CODINGS[coding].reorders and "open-gop" in coding) or coding in ("mpeg2", "mpeg4"),
    }[timing]


CASES = [
    Case(coding, suffix, timing)
    for coding in CODINGS
    for suffix in FORMATS
    for timing in TIMINGS
    if is_possible(coding, suffix, timing)
]


class VideoCache:
    """Encodes each video once, for all tests and all of pytest's worker processes of a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, case: Case) -> Path:
        """Return the path of a video of the matrix."""
        return self.get(case.file_name, lambda path: write(path, case.coding, case.timing))

    def get(self, name: str, write_file: Callable[[Path], object]) -> Path:
        """Return the path of a video; the first call for it in the session writes it."""
        path = self._folder / name
        with open(self._folder / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                unfinished = self._folder / f"unfinished-{name}"
                scheduling = os.sched_getscheduler(0)
                write_file(unfinished)
                assert os.sched_getscheduler(0) == scheduling, "no encoder changes how the tests are scheduled"
                unfinished.rename(path)
        return path


def write(path: Path, coding: str, timing: str) -> None:
    """Encode the video of a coding and timing in the container of the path's suffix."""
    with _preserved_scheduling():
        path.write_bytes(_encode(CODINGS[coding], path.suffix, timing))
    if timing == "B-frames first":
        path.write_bytes(_without_first_group(path.read_bytes(), FORMATS[path.suffix]))
    if timing == "edit list":
        path.write_bytes(_edited(path.read_bytes(), skipped_frames=7))


@contextmanager
def _preserved_scheduling() -> Iterator[None]:
    """Restore the scheduling policy of the calling thread.

    As root, SVT-AV1 makes its caller a real-time thread of the highest priority, and with it all processes that the caller
    starts: they starve everything else on the node.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _encode(coding: Coding, suffix: str, timing: str) -> bytes:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    steps = rng.integers(1, 6, NUM_FRAMES) if timing == "variable" else np.ones(NUM_FRAMES, int)
    ticks = np.concatenate([[0], np.cumsum(steps)])[:-1]
    file = io.BytesIO()
    options = {"fflags": "+bitexact"} | MUXER_OPTIONS.get(suffix, {})
    if timing == "fragmented":
        options["movflags"] = "frag_keyframe+empty_moov"
    with av.open(file, "w", format=FORMATS[suffix], options=options) as container:
        stream = container.add_stream(coding.codec, rate=FPS, options=coding.options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, coding.pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.thread_count = 1
        if timing == "rotation":
            stream.set_display_rotation(-90)
        for index in range(NUM_FRAMES):
            top, left = 2 * index % 170, 3 * index % 250
            image = np.ascontiguousarray(texture[top : top + HEIGHT, left : left + WIDTH])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=coding.pix_fmt)
            frame.pts, frame.time_base = int(ticks[index]), Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _without_first_group(data: bytes, format_name: str) -> bytes:
    """Return the packets from the second key frame on, as a recorder that starts in the middle of a stream leaves them."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as original, av.open(file, "w", format=format_name) as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        num_keys = 0
        for packet in original.demux(video=0):
            num_keys += packet.is_keyframe
            if num_keys >= 2 and packet.size:
                packet.stream = stream
                container.mux(packet)
    assert num_keys > 2
    return file.getvalue()


def _edited(data: bytes, skipped_frames: int) -> bytes:
    """Return an MP4 whose edit list starts some frames after the media."""
    start = data.index(b"elst") + 4
    version_and_count = data[start : start + 8]
    assert version_and_count == b"\x00\x00\x00\x00\x00\x00\x00\x01"
    duration, media_time = struct.unpack(">Ii", data[start + 8 : start + 16])
    media_scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    movie_scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    edited = struct.pack(
        ">Ii",
        duration - skipped_frames * movie_scale // FPS,
        media_time + skipped_frames * media_scale // FPS,
    )
    return data[: start + 8] + edited + data[start + 16 :]
