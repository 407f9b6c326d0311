"""What a video file is: its container, its streams, its length. Bytes in, no frames out.

Only known container formats are opened, told by their first bytes and never by their name, and FFmpeg is only ever given
an open file: a playlist that names other files or hosts is refused before FFmpeg sees it.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream
from pyarrow import NativeFile

from microaction import storage
from microaction.video.ranged import RangedReader

Source = str | os.PathLike[str] | bytes | BinaryIO | RangedReader
"""A path, a URI, a file's whole content, or an open binary file that can seek."""

if TYPE_CHECKING:
    VideoPacket: TypeAlias = av.Packet[VideoStream]
else:
    VideoPacket = av.Packet  # generic for type checkers only

READ_BUFFER_BYTES = 64 << 10  # what FFmpeg asks for at a time; `RangedReader` makes larger requests of it
SNIFF_BYTES = 4096
MPEG_TS_PACKET_BYTES = 188
MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob")
"""Endings of names that an archive's videos have; what is inside is told by content alone."""

# Beyond these a file is taken for damaged, or for an attack, before anything is allocated for it.
MAX_PIXELS = 8192 * 8192
MAX_DURATION_S = 48 * 3600
MAX_FRAMES = MAX_DURATION_S * 240

# Formats whose packets carry presentation timestamps and whose index can be trusted to find a key frame.
SEEKABLE_FORMATS = ("mov", "matroska")
# Formats whose index lists every frame as soon as the file is open.
FULLY_INDEXED_FORMATS = ("mov",)
AVI_FIRST_CHUNK, AVI_CHUNK_HEADER_BYTES = 12, 8  # after "RIFF", a length and "AVI "; a name and a length
# AVI has no presentation timestamps: frames come at a constant rate, so counting them tells their time.
COUNTED_FORMATS = ("avi",)


class DecodeError(Exception):
    """A video cannot be read. `reason` says why, in words for people; the message names the video too."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)  # both in args, so that the error survives a trip between processes
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` learns of a video.

    `width` and `height` are of frames as they are shown, after `rotation`: the degrees (0, 90, 180 or 270), clockwise, by
    which the stored picture is turned. `fps` is the average rate. `num_frames` and `duration_s` are of the video stream
    alone, whatever the length of the audio.
    """

    codec: str
    width: int
    height: int
    rotation: int
    fps: Fraction
    num_frames: int
    duration_s: float
    has_audio: bool


@dataclass(frozen=True)
class OpenVideo:
    """An open container, its video stream, and the name to use in messages."""

    container: InputContainer
    stream: VideoStream
    format: str
    uri: str
    file: BinaryIO

    def packets(self) -> Iterator[VideoPacket]:
        """The packets from where the container stands; raises one of `DAMAGE` where some are lost or cannot be read."""
        packets = _announced(self.container.demux(self.stream))
        end = AVI_FIRST_CHUNK
        while True:
            # FFmpeg's Matroska reader looks for the next whole block after damage, and says so in its log only.
            with _errors_in_log("matroska", self.format == "matroska"):
                packet = next(packets, None)
            if packet is None:
                return
            if self.format == "avi" and packet.pos is not None:
                # AVI knows no times: were a frame lost, all later ones would be taken for others.
                start = packet.pos - AVI_CHUNK_HEADER_BYTES
                if _end_of_chunks(self.file, end, start) != start:
                    raise LostDataError
                end = packet.pos + packet.size + packet.size % 2
            yield packet

    def decode(self, packet: VideoPacket | None) -> list[av.VideoFrame]:
        """What comes out when the decoder gets this packet, or None for its end. Raises one of `DAMAGE`."""
        # A reference that is missing is drawn grey by FFmpeg's HEVC decoder, and that too only its log tells.
        with _errors_in_log("hevc", self.stream.codec_context.name == "hevc"):
            return self.stream.codec_context.decode(packet)

    @property
    def first_tick(self) -> int:
        """The tick of the stream's clock that counts as 0 s."""
        return self.stream.start_time or 0

    @property
    def origin(self) -> Fraction:
        """The time, by the stream's own clock, that counts as 0 s."""
        return self.first_tick * time_base(self.stream)

    @property
    def rate(self) -> Fraction | None:
        """Frames a second on average, where it is known."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate else None

    @property
    def frame_ticks(self) -> int:
        """The length of a frame at the average rate; 0 where the rate is unknown."""
        return int(1 / (self.rate * time_base(self.stream))) if self.rate else 0

    def length_of(self, packet: VideoPacket) -> int:
        """How many ticks a packet's frame is shown."""
        return packet.duration or self.frame_ticks

    def seconds(self, tick: int) -> float:
        return float((tick - self.first_tick) * time_base(self.stream))


class LostDataError(Exception):
    """The container is damaged so that frames are missing, and does not say which."""


DAMAGE = (av.error.FFmpegError, EOFError, LostDataError)
"""What reading a packet or decoding it raises where the file is damaged."""


def _announced(packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    try:
        yield from packets
    except IndexError:  # PyAV's own, where a stream appears that was not announced
        raise LostDataError from None


@contextmanager
def _errors_in_log(name: str, is_watched: bool) -> Iterator[None]:
    """Raises `LostDataError` at the end if FFmpeg's part of this name logged an error."""
    if not is_watched:
        yield
        return
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            yield
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    if any(each.startswith(name) for _, each, _ in log):
        raise LostDataError


def _end_of_chunks(file: BinaryIO, start: int, stop: int) -> int:
    """Where the chunks that begin at `start` end, at `stop` or after it: sound, indexes and padding between frames."""
    if start >= stop:
        return start
    position = file.tell()
    while start < stop:
        file.seek(start)
        header = file.read(AVI_CHUNK_HEADER_BYTES)
        if len(header) < AVI_CHUNK_HEADER_BYTES:
            break
        size = int.from_bytes(header[4:], "little")
        is_list = header[:4] in (b"LIST", b"RIFF")  # its chunks follow its kind
        start += AVI_CHUNK_HEADER_BYTES + (4 if is_list else size + size % 2)
    file.seek(position)
    return start


def name_of(source: Source) -> str:
    """The source for messages."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return "<bytes>" if isinstance(source, bytes) else str(getattr(source, "name", "<file>"))


def open_source(source: Source, uri: str) -> BinaryIO:
    """The source as a seekable binary file; raises `DecodeError` where there is none."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            file = storage.open_input(os.fspath(source))
            return cast(BinaryIO, RangedReader(file, file.size())) if isinstance(file, NativeFile) else file
        except FileNotFoundError:
            raise DecodeError(uri, "no such file") from None
        except OSError as error:
            raise DecodeError(uri, f"cannot be opened: {error}") from error
    source.seek(0)
    return cast(BinaryIO, source)


def container_format(head: bytes) -> str | None:
    """FFmpeg's name of the container that begins with these bytes; None where it is none that may be opened."""
    if head[4:8] in MP4_FIRST_BOXES:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    for start in (0, 4):  # m2ts puts a 4-byte time before every packet
        stride = MPEG_TS_PACKET_BYTES + start
        if len(head) > 3 * stride and all(head[start + i * stride] == 0x47 for i in range(3)):
            return "mpegts"
    return None


@contextmanager
def open_video(source: Source) -> Iterator[OpenVideo]:
    """Opens a source with FFmpeg; raises `DecodeError` with a reason for people where it is not a readable video."""
    uri = name_of(source)
    file = open_source(source, uri)
    try:
        container, format_name = _open_container(file, uri)
        with container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise DecodeError(uri, f"there is no video in it, only {kinds}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DecodeError(uri, "damaged, or in a codec that is not known")
            _refuse_the_outsized(container, stream, uri)
            for other in container.streams:
                if other is not stream:
                    other.discard = Discard.all
            stream.thread_type = "NONE"  # one thread a decoder: cores are used by decoding several videos
            stream.codec_context.thread_count = 1
            decoder_options = {"max_pixels": str(MAX_PIXELS)}
            if stream.codec_context.name == "mjpeg":  # else it fills in what it cannot read, and does not say so
                decoder_options["err_detect"] = "explode"
            stream.codec_context.options = decoder_options
            try:
                yield OpenVideo(container, stream, format_name, uri, file)
            except DAMAGE as error:
                raise DecodeError(uri, reason_of(error)) from error
    finally:
        if file is not source:
            file.close()


def _open_container(file: BinaryIO, uri: str) -> tuple[InputContainer, str]:
    head = file.read(SNIFF_BYTES)
    if not head:
        raise DecodeError(uri, "the file is empty")
    format_name = container_format(head)
    if format_name is None:
        raise DecodeError(uri, "not a video: its content is none of MP4/MOV, MKV/WebM, AVI, MPEG-TS or MPEG-PS")
    if format_name == "mov":
        announce(file, range(_end_of_leading_index(head)))
    file.seek(0)
    try:
        # max_pixels: opening decodes a first frame, of whatever size it says.
        # protocol_whitelist: whatever the container says, FFmpeg may open nothing besides the file it was given.
        options = {"protocol_whitelist": "", "max_pixels": str(MAX_PIXELS)}
        if format_name == "mov":
            options["enable_drefs"] = "0"
        container = av.open(
            file,
            "r",
            format=format_name,
            options=options,
            buffer_size=READ_BUFFER_BYTES,
            metadata_errors="replace",
        )
        return container, format_name
    except (av.error.FFmpegError, EOFError) as error:
        if format_name == "mov" and isinstance(error, av.error.InvalidDataError):
            raise DecodeError(
                uri, "cut short or damaged: the index of the MP4/MOV file (its 'moov' box) is missing or unreadable"
            ) from error
        raise DecodeError(uri, reason_of(error)) from error


def _refuse_the_outsized(container: InputContainer, stream: VideoStream, uri: str) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise DecodeError(uri, f"its frames of {width}×{height} are larger than {MAX_PIXELS} pixels")
    of_stream = (stream.duration or 0) * (stream.time_base or 0)
    duration_s = float(max(of_stream, Fraction(container.duration or 0, av.time_base)))
    if duration_s > MAX_DURATION_S:
        raise DecodeError(
            uri, f"it says that it is {duration_s / 3600:.0f} hours long, more than {MAX_DURATION_S // 3600}"
        )
    num_frames = max(stream.frames, len(stream.index_entries))
    if num_frames > MAX_FRAMES:
        raise DecodeError(uri, f"it says that it has {num_frames} frames, more than {MAX_FRAMES}")


def announce(file: BinaryIO, needed: range) -> None:
    """Tells a remote file which bytes will be read."""
    if isinstance(file, RangedReader):
        file.needed = needed


def _end_of_leading_index(head: bytes) -> int:
    """Where the index of an MP4/MOV file ends, if it comes first; else 0."""
    start = 0
    while start + 8 <= len(head):
        size = int.from_bytes(head[start : start + 4], "big")
        if head[start + 4 : start + 8] == b"moov":
            return start + size
        if size < 8:
            break
        start += size
    return 0


def reason_of(error: Exception) -> str:
    """FFmpeg's error in words for people."""
    if isinstance(error, EOFError):
        return "cut short: the data ends before the video does"
    if isinstance(error, LostDataError):
        return "damaged: a part of it is missing or unreadable"
    code = getattr(error, "errno", None)
    if isinstance(error, av.error.InvalidDataError) or code in (errno.EPERM, errno.EAGAIN):
        return "damaged: its data cannot be decoded"
    if code == errno.EINVAL:
        return f"damaged, or its frames are larger than {MAX_PIXELS} pixels"
    return f"cannot be decoded: {getattr(error, 'strerror', None) or error}"


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick of the stream's clock."""
    assert stream.time_base is not None, "a demuxed stream has a time base"
    return stream.time_base


def probe(source: Source) -> VideoInfo:
    """Reads a video's facts from its index, or where it has none by reading through its packets.

    The first frame is decoded, so that what `probe` accepts has at least one. Raises `DecodeError`.
    """
    with open_video(source) as video:
        first = next(iter(video.container.decode(video.stream)), None)
        if first is None:
            raise DecodeError(video.uri, "there is not one frame in it")
        rotation = clockwise_rotation(first)
        width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
        num_frames, end = _count_frames(video)
        duration = max(end - video.origin, Fraction(0))
        rate = video.stream.average_rate or video.stream.guessed_rate
        if not rate:
            rate = num_frames / duration if duration else Fraction(0)
        if video.format in COUNTED_FORMATS or not duration:
            if not rate:
                raise DecodeError(video.uri, "it says neither how long it is nor how many frames a second has")
            duration = num_frames / rate
        return VideoInfo(
            codec=video.stream.codec_context.name,
            width=width,
            height=height,
            rotation=rotation,
            fps=Fraction(rate),
            num_frames=num_frames,
            duration_s=float(duration),
            has_audio=bool(video.container.streams.audio),
        )


def frame_times(source: Source) -> list[Fraction]:
    """When each frame is shown, in seconds, ascending, by its packets; empty where some of them do not say.

    Where a container only counts frames, they follow each other at its rate.
    """
    with open_video(source) as video:
        shown = [packet for packet in video.packets() if packet.size and not packet.is_discard]
        if video.format in COUNTED_FORMATS and video.rate:
            return [(packet.dts if packet.dts is not None else i) / video.rate for i, packet in enumerate(shown)]
        ticks = [packet.pts for packet in shown if packet.pts is not None]
        tick_s = time_base(video.stream)
        return [(tick - video.first_tick) * tick_s for tick in sorted(ticks)] if len(ticks) == len(shown) else []


def clockwise_rotation(frame: av.VideoFrame) -> int:
    """Degrees clockwise (0, 90, 180, 270) by which the frame must be turned; FFmpeg counts the other way round."""
    return round(-frame.rotation / 90) * 90 % 360


def _count_frames(video: OpenVideo) -> tuple[int, Fraction]:
    """The number of frames that are shown, and the time, by the stream's clock, at which the last one ends."""
    stream, container = video.stream, video.container
    entries = stream.index_entries
    indexed = video.format in FULLY_INDEXED_FORMATS and 0 < stream.frames == len(entries)
    # A whole index makes the last group of pictures enough to know the end; without one every packet is read.
    container.seek(_last_tick(stream) if indexed else stream.start_time or 0, stream=stream, backward=True)
    num_packets, end = 0, 0
    for packet in _announced(container.demux(stream)):  # what is lost in between is for decoding to find
        if packet.size == 0 or packet.is_discard:
            continue
        num_packets += 1
        tick = packet.pts if packet.pts is not None else packet.dts
        if tick is not None:
            end = max(end, tick + video.length_of(packet))
    num_frames = sum(not entry.is_discard for entry in entries) if indexed else num_packets
    if indexed and not num_packets:  # the index promises what the data no longer holds: decoding will say so
        end = (stream.start_time or 0) + (stream.duration or 0)
    return num_frames, end * time_base(stream)


def _last_tick(stream: VideoStream) -> int:
    return (stream.start_time or 0) + (stream.duration or 0)
