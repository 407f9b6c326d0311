"""Opened video files: the container, its video stream, and the stream's packets.

Only known container formats are opened. The first bytes decide the format, never the name, and FFmpeg is only ever given an
open file: a playlist that names other files or hosts is refused before FFmpeg sees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from microaction.errors import DecodeError
from microaction.video.decoding.bitstream import annex_b_random_access
from microaction.video.decoding.damage import DAMAGE_ERRORS, LostDataError, raise_logged_errors, reason_of
from microaction.video.decoding.formats import (
    AVI_CHUNK_HEADER_BYTES,
    AVI_FIRST_CHUNK,
    BROADCAST_FORMATS,
    COUNTED_FORMATS,
    ELEMENTARY_FORMATS,
    SEEKABLE_FORMATS,
    SNIFF_BYTES,
    container_format,
    end_of_chunks,
    end_of_leading_index,
    is_next_frame,
    pointer_advice,
    unreadable_format,
)
from microaction.video.decoding.limits import MAX_PIXELS, check_limits
from microaction.video.decoding.sources import Source, hint_byte_range, name_of, open_source
from microaction.video.decoding.timeline import JITTER_FRAMES, MAX_STEP_S, MIN_JITTER_S, Clock, VideoPacket

H264_MISSING_REFERENCE = ("abs_diff_pic_num overflow", "reference picture missing", "Missing reference picture")
MPEG_1_2 = ("mpeg1video", "mpeg2video")
READ_BUFFER_BYTES = 64 << 10  # FFmpeg's reads; `RangedReader` combines them into larger requests


@dataclass(frozen=True)
class OpenVideo:
    """An open container, its video stream, and the name to use in messages."""

    container: InputContainer
    stream: VideoStream
    format_name: str
    uri: str
    file: BinaryIO
    num_video_tracks: int

    def packets(self, *, first_chunk: int = AVI_FIRST_CHUNK) -> Iterator[VideoPacket]:
        """Yield the packets from the container's present position on; in AVI, the chunk at `first_chunk` is there.

        Raises one of `DAMAGE_ERRORS` where packets are missing or cannot be read.
        """
        packets = demux_declared_streams(self.container.demux(self.stream))
        end = first_chunk
        tag: int | None = None  # of the packet before
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
            if self.format_name == "flv" and packet.pos is not None:
                # FFmpeg looks for the next tag after a damaged one in silence, and its decoder makes up what is missing.
                if tag is not None and not is_next_frame(self.file, tag, packet.pos):
                    packet.is_corrupt = True
                tag = packet.pos
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
        """The tick of the stream's clock at which the video track starts: 0 s for whatever is decoded."""
        return self.stream.start_time or 0

    @property
    def start_s(self) -> Fraction:
        """When the video track starts on the file's timeline, where 0 s is where players start the file."""
        if self.stream.start_time is None or self.container.start_time is None:
            return Fraction(0)
        start_s = self.origin_tick * time_base(self.stream) - Fraction(self.container.start_time, av.time_base)
        is_rounding = start_s < (1 / self.fps if self.fps else time_base(self.stream))
        return Fraction(0) if is_rounding else start_s

    @property
    def is_seekable(self) -> bool:
        """Whether the container's own index leads to a frame by its time."""
        return self.format_name in SEEKABLE_FORMATS

    def is_random_access(self, packet: VideoPacket) -> bool:
        """Return whether decoding may start at a packet of a stream without an index."""
        has_start_codes = self.format_name in (*BROADCAST_FORMATS, *ELEMENTARY_FORMATS)
        test = annex_b_random_access(self.stream.codec_context.name) if has_start_codes else None
        return packet.is_keyframe if test is None else test(memoryview(packet))

    @property
    def clock(self) -> Clock | None:
        """The rules of the clock of a stream without an index; None where the container states every frame's time."""
        if self.is_seekable or self.format_name in COUNTED_FORMATS:
            return None
        return Clock(
            self.frame_ticks,
            has_times=self.format_name not in ELEMENTARY_FORMATS,
            jitter_ticks=self.jitter_ticks,
            is_constant=self.format_name == "mpeg" and self.stream.codec_context.name in MPEG_1_2,
            max_step_ticks=int(MAX_STEP_S / time_base(self.stream)) if self.format_name in BROADCAST_FORMATS else None,
        )

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

    def end_of_repeats(self, last: int) -> int:
        """Return up to which chunk of an AVI file the frame of chunk `last` is repeated if no later chunk has data.

        Empty chunks are not listed in the index: the header counts them.
        """
        entries = self.stream.index_entries
        if not len(entries) or entries[-1].timestamp > last:
            return last + 1
        return max(self.stream.duration or 0, last + 1)

    @property
    def jitter_ticks(self) -> int:
        """By how much the times of frames may be inaccurate."""
        return max(JITTER_FRAMES * self.frame_ticks, int(MIN_JITTER_S / time_base(self.stream)))

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
            stream, num_video_tracks = _video_track(container, uri)
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
                yield OpenVideo(container, stream, format_name, uri, file, num_video_tracks)
            except DAMAGE_ERRORS as error:
                raise DecodeError(uri, reason_of(error)) from error
    finally:
        if file is not source:
            file.close()


def _video_track(container: InputContainer, uri: str) -> tuple[VideoStream, int]:
    """Return the default video track, or the first one, and how many there are. Cover pictures are none."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not tracks:
        kinds: set[str] = {stream.type for stream in container.streams if stream.type != "video"}
        if container.streams.video:
            kinds.add("a cover picture")
        raise DecodeError(uri, f"contains no video, only {' and '.join(sorted(kinds, reverse=True)) or 'nothing'}")
    track = next((track for track in tracks if track.disposition & Disposition.default), tracks[0])
    if track.codec_context is None:
        raise DecodeError(uri, "damaged, or in an unknown codec")
    return track, len(tracks)


def _open_container(file: BinaryIO, uri: str) -> tuple[InputContainer, str]:
    head = file.read(SNIFF_BYTES)
    if not head:
        raise DecodeError(uri, "the file is empty")
    format_name = container_format(head)
    if format_name is None:
        advice = pointer_advice(head)
        if advice is not None:
            raise DecodeError(uri, advice)
        unreadable = unreadable_format(head)
        if unreadable is not None:
            raise DecodeError(uri, f"its content is {unreadable}, which is not read; convert it to MP4 or MKV")
        raise DecodeError(uri, "not a video: its content is in none of the container formats that are read")
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
