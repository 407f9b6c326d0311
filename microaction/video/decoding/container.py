"""Opened video files: the container, its video stream, and the stream's packets.

Only known container formats are opened. The first bytes decide the format, never the name, and FFmpeg is only ever given an
open file: a playlist that names other files or hosts is refused before FFmpeg sees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from microaction.errors import DecodeError
from microaction.video.decoding.damage import DAMAGE_ERRORS, LostDataError, raise_logged_errors, reason_of
from microaction.video.decoding.formats import (
    AVI_CHUNK_HEADER_BYTES,
    AVI_FIRST_CHUNK,
    SNIFF_BYTES,
    container_format,
    end_of_chunks,
    end_of_leading_index,
)
from microaction.video.decoding.limits import MAX_PIXELS, check_limits
from microaction.video.decoding.sources import Source, hint_byte_range, name_of, open_source

if TYPE_CHECKING:
    VideoPacket: TypeAlias = av.Packet[VideoStream]
else:
    VideoPacket = av.Packet  # generic for type checkers only

H264_MISSING_REFERENCE = ("abs_diff_pic_num overflow", "reference picture missing", "Missing reference picture")
READ_BUFFER_BYTES = 64 << 10  # FFmpeg's reads; `RangedReader` combines them into larger requests


@dataclass(frozen=True)
class OpenVideo:
    """An open container, its video stream, and the name to use in messages."""

    container: InputContainer
    stream: VideoStream
    format_name: str
    uri: str
    file: BinaryIO

    def packets(self) -> Iterator[VideoPacket]:
        """Yield the packets from the container's present position on.

        Raises one of `DAMAGE_ERRORS` where packets are missing or cannot be read.
        """
        packets = demux_declared_streams(self.container.demux(self.stream))
        end = AVI_FIRST_CHUNK
        while True:
            # After damage, FFmpeg's Matroska reader skips to the next whole block, and reports that in its log only.
            with raise_logged_errors("matroska", is_watched=self.format_name == "matroska"):
                packet = next(packets, None)
            if packet is None:
                return
            if self.format_name == "avi" and packet.pos is not None:
                # AVI has no timestamps: if a frame were missing, all later ones would get the wrong number.
                start = packet.pos - AVI_CHUNK_HEADER_BYTES
                if end_of_chunks(self.file, end, start) != start:
                    raise LostDataError
                end = packet.pos + packet.size + packet.size % 2
            yield packet

    def decode(self, packet: VideoPacket | None, *, has_all_references: bool = False) -> list[av.VideoFrame]:
        """Return the frames that the decoder outputs for this packet; None drains it. Raises one of `DAMAGE_ERRORS`.

        `has_all_references`: the decoder was given every frame that this one may refer to, so a missing one is damage.
        """
        # FFmpeg's decoders make up a missing reference in whatever way they like, and only their log reports it.
        codec = self.stream.codec_context
        texts = H264_MISSING_REFERENCE if codec.name == "h264" else ("",)
        is_watched = codec.name == "hevc" or (codec.name == "h264" and has_all_references)
        with raise_logged_errors(codec.name, is_watched=is_watched, texts=texts):
            return codec.decode(packet)

    @property
    def origin_tick(self) -> int:
        """The tick of the stream's clock that counts as 0 s."""
        return self.stream.start_time or 0

    @property
    def origin_s(self) -> Fraction:
        """The time on the stream's clock that counts as 0 s."""
        return self.origin_tick * time_base(self.stream)

    @property
    def fps(self) -> Fraction | None:
        """The average frame rate, or None where it is unknown."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate else None

    @property
    def frame_ticks(self) -> int:
        """The duration of a frame at the average rate; 0 where the rate is unknown."""
        return int(1 / (self.fps * time_base(self.stream))) if self.fps else 0

    def duration_ticks(self, packet: VideoPacket) -> int:
        """Return for how many ticks the packet's frame is shown."""
        return packet.duration or self.frame_ticks

    def seconds(self, tick: int) -> float:
        """Return the time of a tick of the stream's clock."""
        return float((tick - self.origin_tick) * time_base(self.stream))


@contextmanager
def open_video(source: Source) -> Iterator[OpenVideo]:
    """Open a source with FFmpeg. Raises `DecodeError` with a readable reason if it is not a readable video."""
    uri = name_of(source)
    file = open_source(source, uri)
    try:
        container, format_name = _open_container(file, uri)
        with container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise DecodeError(uri, f"contains no video, only {kinds}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DecodeError(uri, "damaged, or in an unknown codec")
            check_limits(container, stream, uri)
            for other in container.streams:
                if other is not stream:
                    other.discard = Discard.all
            stream.thread_type = "NONE"  # one thread per decoder: other cores decode other videos
            stream.codec_context.thread_count = 1
            decoder_options = {"max_pixels": str(MAX_PIXELS)}
            if (
                stream.codec_context.name == "mjpeg"
            ):  # otherwise it fills in what it cannot read, and does not report it
                decoder_options["err_detect"] = "explode"
            stream.codec_context.options = decoder_options
            try:
                yield OpenVideo(container, stream, format_name, uri, file)
            except DAMAGE_ERRORS as error:
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
        # max_pixels: opening decodes a first frame of whatever size the file declares.
        # protocol_whitelist: whatever the container says, FFmpeg may open nothing besides the file that it was given.
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


def demux_declared_streams(packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    """Yield the packets; raise `LostDataError` at one of a stream that the header does not declare, which PyAV rejects."""
    try:
        yield from packets
    except IndexError:
        raise LostDataError from None


def time_base(stream: VideoStream) -> Fraction:
    """Return the seconds per tick of the stream's clock."""
    assert stream.time_base is not None, "a demuxed stream has a time base"
    return stream.time_base


def clockwise_rotation(frame: av.VideoFrame) -> int:
    """Return the degrees clockwise (0, 90, 180, 270) by which the display matrix turns the frame.

    FFmpeg counts counterclockwise.
    """
    return round(-frame.rotation / 90) * 90 % 360
