"""What archives hold besides neat files, made small: how each situation comes about, and what a player shows of it.

Each makes a gray video at 25 frames/s (see tests.video.gray) and states the truth by construction.
"""

import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from tests.video.avi import Packet, write_avi
from tests.video.gray import B_FRAMES, FPS, LOSSY, NO_B_FRAMES, NUM_FRAMES, SIZE, Track, packets_of, write
from tests.video.gray import patched_block_times as moved

LATE_S = Fraction(38, FPS)
MPEG_2 = Track("mpeg2video", LOSSY)
MPEG_4 = Track("mpeg4", LOSSY)
MJPEG = Track("mjpeg", {"qmin": "1", "qmax": "2"}, pix_fmt="yuvj420p")
VP8 = Track("libvpx", {"b": "2000000", "g": "1000"})
NO_REORDERING = Track(options=NO_B_FRAMES | {"g": "12", "qp": "4"})
TS_PACKET_BYTES = 188
CLOCK_WRAPS_AT_S = 2**33 / 90_000
EMPTY: Packet = (b"", False)


@dataclass(frozen=True)
class Situation:
    """A file and what a player shows of it.

    `slots` says which frame is on the screen in each frame interval from the start of the picture track on; None where more
    than one is right. `num_frames` is None where empty chunks or damage leave open what counts as a frame; `num_packets` is
    what ffprobe counts if it is another number, or None if ffprobe does not read the file. `remaining` is the fraction of
    the packets of a file that was cut: its data ends before the duration in its header.
    """

    suffix: str
    make: Callable[[], bytes]
    num_frames: int | None = NUM_FRAMES
    slots: Sequence[int | None] = range(NUM_FRAMES)
    start_s: Fraction = Fraction(0)
    size: tuple[int, int] = SIZE
    num_packets: int | None = NUM_FRAMES
    num_video_tracks: int = 1
    is_healthy: bool = True
    needs_ffmpeg: bool = False
    remaining: float = 1

    @property
    def duration_s(self) -> float:
        """The duration of the picture track."""
        return len(self.slots) / FPS

    @property
    def min_duration_s(self) -> float:
        """The duration of the data that remains of a file that was cut."""
        return self.duration_s * self.remaining

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(self.make())


def _part(first: int, last: int, codec: str = "libx264", options: dict[str, str] = B_FRAMES) -> Track:
    return Track(codec, options, range(first, last))


def _mjpeg(
    num_riffs: int = 1, *, empty: Sequence[int] = (), num_frames: int = NUM_FRAMES, has_index: bool = True
) -> bytes:
    """Return MJPEG in AVI with empty chunks at some positions; frame n is in chunk n."""
    packets = [EMPTY if index in empty else packet for index, packet in enumerate(packets_of(MJPEG))][:num_frames]
    return write_avi(packets, fourcc=b"MJPG", size=SIZE, fps=FPS, num_riffs=num_riffs, has_index=has_index)


def _repeated(empty: Sequence[int]) -> list[int | None]:
    """Return the slots of a video whose empty chunks repeat the frame before; before the first frame any may be shown."""
    shown: list[int | None] = []
    for index in range(NUM_FRAMES):
        shown.append((shown[-1] if shown else None) if index in empty else index)
    return shown


def _clock_of_fields(track: Track) -> bytes:
    """Return what copying a track to AVI with a clock of fields gives: every other chunk is empty."""
    packets = [chunk for packet in packets_of(track) for chunk in (packet, EMPTY)]
    return write_avi(packets, fourcc=b"H264", size=SIZE, fps=2 * FPS)


def _packed() -> bytes:
    """Return MPEG-4 in AVI as DivX packs it: a B-frame shares the chunk of the frame after it, then a placeholder follows."""
    packets = packets_of(Track("mpeg4", LOSSY | {"bf": "1"}))
    divx, first_picture = b"\0\0\1\xb2DivX503b1393p", packets[0][0].index(b"\0\0\1\xb6")
    header, picture = packets[0][0][:first_picture], packets[0][0][first_picture:]
    chunks: list[Packet] = [(header + divx + picture, True)]
    waiting = packets[1:]
    while waiting:
        (data, is_key), *rest = waiting
        if rest and _is_b_frame(rest[0][0]):
            chunks += [(data + rest[0][0], is_key), (b"\0\0\1\xb6\x50\x5f", False)]
            waiting = rest[1:]
        else:
            chunks.append((data, is_key))
            waiting = rest
    return write_avi(chunks, fourcc=b"DX50", size=SIZE, fps=FPS)


def _is_b_frame(data: bytes) -> bool:
    return data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 2


def _program_stream(format_name: str, first: int = 0, last: int = NUM_FRAMES) -> bytes:
    codec = "mpeg1video" if format_name in ("mpeg", "vcd") else "mpeg2video"
    return write(format_name, _part(first, last, codec, LOSSY))


def _transport_stream(first: int = 0, last: int = NUM_FRAMES, **options: str) -> bytes:
    return write("mpegts", _part(first, last), options=options)


def _with_hole(data: bytes) -> bytes:
    """Return a transport stream that lost a fifth of its packets in the middle."""
    first, last = (len(data) * tenths // 10 // TS_PACKET_BYTES * TS_PACKET_BYTES for tenths in (4, 6))
    return data[:first] + data[last:]


def _cut(data: bytes, percentage: int = 60) -> bytes:
    return data[: len(data) * percentage // 100]


def _indexed_first_and_cut() -> bytes:
    data = write("mp4", Track(), options={"moov_size": "20000"})  # the index first
    with av.open(io.BytesIO(data), "r") as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    return data[: positions[60]]


def _late_track() -> Track:
    return Track(start_s=LATE_S)


def _other_track() -> Track:
    """Return a track that players do not show: smaller, shorter, and with the numbers in reverse."""
    return Track(numbers=range(49, -1, -1), size=(96, 64), is_default=False)


def _by_ffmpeg(format_name: str, codec: str, *options: str) -> bytes:
    """Encode with the command, for codecs that PyAV is built without."""
    source = write("matroska", Track(options=B_FRAMES | {"qp": "0"}))
    command = ["ffmpeg", "-v", "error", "-i", "-", "-c:v", codec, *options, "-f", format_name, "-"]
    return subprocess.run(command, input=source, stdout=subprocess.PIPE, check=True).stdout


EVERY_THIRD = range(2, NUM_FRAMES, 3)
# Each of these frames has the time of the one before it, moved here: of equal times the later frame is on the screen, and
# the frame before both stays for two intervals.
EQUAL_AT = (10, 31, 59)
SAME_TIME = {number - 1: 40 for number in EQUAL_AT}
SAME_TIME_SLOTS = [number - 1 if number + 1 in EQUAL_AT else number for number in range(NUM_FRAMES)]
# Each of these frames has a time a millisecond before that of the frame before it: which of both is shown is open.
BACK_AT = (10, 31, 59)
STEP_BACK = dict.fromkeys(BACK_AT, -41)
STEP_BACK_SLOTS = [None if number in BACK_AT or number + 1 in BACK_AT else number for number in range(NUM_FRAMES)]

SITUATIONS: dict[str, Situation] = {
    "mp4": Situation(".mp4", lambda: write("mp4", Track())),
    "mkv": Situation(".mkv", lambda: write("matroska", Track())),
    # AVI
    "avi-mjpeg": Situation(".avi", _mjpeg),
    "avi-empty-at-end": Situation(
        ".avi", lambda: _mjpeg(empty=range(70, 100)), None, _repeated(range(70, 100)), num_packets=70
    ),
    "avi-empty-at-start": Situation(
        ".avi", lambda: _mjpeg(empty=range(10)), None, _repeated(range(10)), num_packets=90
    ),
    "avi-every-third-empty": Situation(
        ".avi", lambda: _mjpeg(empty=EVERY_THIRD), None, _repeated(EVERY_THIRD), num_packets=67
    ),
    "avi-without-index": Situation(".avi", lambda: _mjpeg(has_index=False)),
    "avi-open-dml": Situation(".avi", lambda: _mjpeg(3)),
    "avi-open-dml-empty": Situation(
        ".avi", lambda: _mjpeg(3, empty=EVERY_THIRD), None, _repeated(EVERY_THIRD), num_packets=67
    ),
    "avi-mpeg4": Situation(".avi", lambda: write("avi", Track("mpeg4", LOSSY | NO_B_FRAMES))),
    "avi-mpeg4-b-frames": Situation(".avi", lambda: write("avi", MPEG_4)),
    "avi-mpeg4-packed": Situation(".avi", _packed, None),
    "avi-h264-copied": Situation(".avi", lambda: _clock_of_fields(NO_REORDERING)),
    "avi-h264-copied-b-frames": Situation(".avi", lambda: _clock_of_fields(Track())),
    "avi-h263": Situation(
        ".avi", lambda: write("avi", Track("h263", {"qmin": "2", "qmax": "3"}, size=(128, 96))), size=(140, 96)
    ),
    # MPEG program streams: several frames of a calm scene share a packet, and only the first has a time
    "ps-mpeg1": Situation(".mpg", lambda: _program_stream("mpeg")),
    "ps-mpeg2": Situation(".MOD", lambda: _program_stream("vob")),
    "ps-dvd": Situation(".vob", lambda: _program_stream("dvd")),
    "ps-joined": Situation(".mpg", lambda: _program_stream("vob", 0, 60) + _program_stream("vob", 60, 100)),
    # MPEG transport streams
    "ts": Situation(".ts", _transport_stream),
    "ts-mpeg2": Situation(".m2t", lambda: write("mpegts", MPEG_2)),
    "ts-three-frames": Situation(".ts", lambda: _transport_stream(0, 3), 3, range(3), num_packets=None),
    "ts-joined": Situation(
        ".ts", lambda: _transport_stream(0, 40) + _transport_stream(40, 80) + _transport_stream(80, 100)
    ),
    "ts-clock-wraps": Situation(".ts", lambda: _transport_stream(output_ts_offset=f"{CLOCK_WRAPS_AT_S - 2:.3f}")),
    "ts-large-clock": Situation(".ts", lambda: _transport_stream(output_ts_offset="50000")),
    "m2ts": Situation(".MTS", lambda: _transport_stream(mpegts_m2ts_mode="1")),
    "m2ts-joined": Situation(
        ".m2ts",
        lambda: _transport_stream(0, 50, mpegts_m2ts_mode="1") + _transport_stream(50, 100, mpegts_m2ts_mode="1"),
    ),
    # Matroska and WebM whose times are not neat
    "webm-vp8": Situation(".webm", lambda: write("webm", VP8)),
    "webm-equal-times": Situation(".webm", lambda: moved(write("webm", VP8), SAME_TIME), slots=SAME_TIME_SLOTS),
    "webm-times-step-back": Situation(".webm", lambda: moved(write("webm", VP8), STEP_BACK), slots=STEP_BACK_SLOTS),
    "mkv-equal-times": Situation(
        ".mkv", lambda: moved(write("matroska", NO_REORDERING), SAME_TIME), slots=SAME_TIME_SLOTS
    ),
    "mkv-times-step-back": Situation(
        ".mkv", lambda: moved(write("matroska", NO_REORDERING), STEP_BACK), slots=STEP_BACK_SLOTS
    ),
    # Containers and streams that are decoded whole
    "flv-h264": Situation(".flv", lambda: write("flv", Track())),
    "flv-sorenson": Situation(".flv", lambda: write("flv", Track("flv", {"qmin": "2", "qmax": "3"}))),
    "asf": Situation(".wmv", lambda: write("asf", Track("wmv2", {"qmin": "2", "qmax": "3"}))),
    "mxf": Situation(".mxf", lambda: write("mxf", MPEG_2)),
    "dv": Situation(
        ".dv",
        lambda: write("dv", Track("dvvideo", {}, range(50), (720, 576))),
        50,
        range(50),
        size=(768, 576),
        num_packets=50,
    ),
    "h264-stream": Situation(".h264", lambda: write("h264", Track())),
    "mpeg2-stream": Situation(".m2v", lambda: write("mpeg2video", MPEG_2)),
    "ogg-theora": Situation(".ogv", lambda: _by_ffmpeg("ogg", "libtheora", "-q:v", "10"), needs_ffmpeg=True),
    # Pictures that start later than the sound
    "mp4-late-picture": Situation(".mp4", lambda: write("mp4", _late_track(), audio_s=5.6), start_s=LATE_S),
    "mkv-late-picture": Situation(".mkv", lambda: write("matroska", _late_track(), audio_s=5.6), start_s=LATE_S),
    "ts-late-picture": Situation(".ts", lambda: write("mpegts", _late_track(), audio_s=5.6), start_s=LATE_S),
    # Pixels that are not square; of two video tracks, the default one
    "mp4-wide-pixels": Situation(".mp4", lambda: write("mp4", Track(pixel_aspect=Fraction(4, 3))), size=(213, 96)),
    "mkv-tall-pixels": Situation(
        ".mkv", lambda: write("matroska", Track(pixel_aspect=Fraction(3, 4))), size=(160, 128)
    ),
    "vob-wide-pixels": Situation(
        ".vob",
        lambda: write("vob", Track("mpeg2video", LOSSY, range(25), (720, 576), pixel_aspect=Fraction(64, 45))),
        25,
        range(25),
        size=(1024, 576),
        num_packets=25,
    ),
    "mkv-second-is-default": Situation(".mkv", lambda: write("matroska", _other_track(), Track()), num_video_tracks=2),
    "mp4-second-is-default": Situation(".mp4", lambda: write("mp4", _other_track(), Track()), num_video_tracks=2),
    # Damage whose extent is known: what is missing is failed, all else is shown
    "mp4-cut": Situation(".mp4", _indexed_first_and_cut, None, num_packets=None, is_healthy=False),
    "mkv-cut": Situation(
        ".mkv", lambda: _cut(write("matroska", Track())), None, remaining=0.46, num_packets=None, is_healthy=False
    ),
    "avi-cut": Situation(".avi", lambda: _cut(_mjpeg()), None, remaining=0.6, num_packets=None, is_healthy=False),
    "ts-hole": Situation(".ts", lambda: _with_hole(_transport_stream()), None, num_packets=None, is_healthy=False),
}
