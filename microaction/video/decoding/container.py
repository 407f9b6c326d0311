"""Video files, opened: their container, their stream of packets, what is wrong with them.

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
from microaction.errors import DecodeError
from microaction.video.decoding.formats import (
    AVI_CHUNK_HEADER_BYTES,
    AVI_FIRST_CHUNK,
    SNIFF_BYTES,
    container_format,
    end_of_chunks,
    end_of_leading_index,
)
from microaction.video.decoding.ranged import CountedReader, RangedReader

Source = str | os.PathLike[str] | bytes | BinaryIO | RangedReader | CountedReader
"""A path, a URI, a file's whole content, or an open binary file that can seek."""

if TYPE_CHECKING:
    VideoPacket: TypeAlias = av.Packet[VideoStream]
else:
    VideoPacket = av.Packet  # generic for type checkers only

H264_MISSING_REFERENCE = ("abs_diff_pic_num overflow", "reference picture missing", "Missing reference picture")
READ_BUFFER_BYTES = 64 << 10  # what FFmpeg asks for at a time; `RangedReader` makes larger requests of it
# Beyond these a file is taken for damaged, or for an attack, before anything is allocated for it.
MAX_PIXELS = 8192 * 8192
MAX_DURATION_S = 48 * 3600
MAX_FRAMES = MAX_DURATION_S * 240


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
        packets = demux_declared_streams(self.container.demux(self.stream))
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
                if end_of_chunks(self.file, end, start) != start:
                    raise LostDataError
                end = packet.pos + packet.size + packet.size % 2
            yield packet

    def decode(self, packet: VideoPacket | None, *, has_all_references: bool = False) -> list[av.VideoFrame]:
        """What comes out when the decoder gets this packet, or None for its end. Raises one of `DAMAGE`.

        `has_all_references`: it was given every frame that this one may refer to, so that a missing one is damage.
        """
        # A reference that is missing is drawn by FFmpeg's decoders as they like, and only their log tells.
        codec = self.stream.codec_context
        texts = H264_MISSING_REFERENCE if codec.name == "h264" else ("",)
        is_watched = codec.name == "hevc" or (codec.name == "h264" and has_all_references)
        with _errors_in_log(codec.name, is_watched, texts):
            return codec.decode(packet)

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


def demux_declared_streams(packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    """The packets, up to one of a stream that the file did not hint_byte_range: PyAV cannot take it."""
    try:
        yield from packets
    except IndexError:
        raise LostDataError from None


@contextmanager
def _errors_in_log(name: str, is_watched: bool, texts: tuple[str, ...] = ("",)) -> Iterator[None]:
    """Raises `LostDataError` at the end if FFmpeg's part of this name logged an error that contains one of the texts."""
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
    if any(each.startswith(name) and any(text in message for text in texts) for _, each, message in log):
        raise LostDataError


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
            return cast(BinaryIO, RangedReader(file, file.size(), uri)) if isinstance(file, NativeFile) else file
        except FileNotFoundError:
            raise DecodeError(uri, "no such file") from None
        except storage.StorageError:  # says nothing about the file
            raise
        except OSError as error:
            raise DecodeError(uri, f"cannot be opened: {error}") from error
    source.seek(0)
    return cast(BinaryIO, source)


@contextmanager
def counted_bytes(source: Source) -> Iterator[RangedReader | CountedReader]:
    """The source as a file that counts what is read of it; raises `DecodeError` where there is none."""
    uri = name_of(source)
    file = open_source(source, uri)
    reader = file if isinstance(file, RangedReader) else CountedReader(file, uri)
    try:
        yield reader
    finally:
        if file is not source:
            file.close()


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
        hint_byte_range(file, range(end_of_leading_index(head)))
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


def hint_byte_range(file: BinaryIO, needed: range) -> None:
    """Tells a remote file which bytes will be read."""
    if isinstance(file, RangedReader):
        file.needed = needed


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


def clockwise_rotation(frame: av.VideoFrame) -> int:
    """Degrees clockwise (0, 90, 180, 270) by which the frame must be turned; FFmpeg counts the other way round."""
    return round(-frame.rotation / 90) * 90 % 360
