"""Facts about a video, read from its container: codec, size, duration and timestamps."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from av.video.stream import VideoStream

from microaction.errors import DecodeError
from microaction.video.decoding.bitstream import (
    ANNEX_B_RANDOM_ACCESS,
    INTRA_ONLY_CODECS,
    MPEG_4_B,
    mpeg4_coding_types,
)
from microaction.video.decoding.container import OpenVideo, demux_declared_streams, open_video, time_base
from microaction.video.decoding.formats import (
    BROADCAST_FORMATS,
    COUNTED_FORMATS,
    ELEMENTARY_FORMATS,
    FULLY_INDEXED_FORMATS,
)
from microaction.video.decoding.picture import Orientation, Picture
from microaction.video.decoding.sources import Source
from microaction.video.decoding.starting import from_beginning
from microaction.video.decoding.timeline import PlacedPacket, SeekPoint, VideoPacket
from microaction.video.windows import MICROSECONDS

SEEK_POINT_INTERVAL_S = 2
# In AVI, which marks key frames: nothing after a key frame refers to frames before it, and frames are stored in order.
AVI_CODECS_WITH_KEY_FRAMES = (*INTRA_ONLY_CODECS, "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "dvvideo")


@dataclass(frozen=True)
class VideoInfo:
    """The facts that `probe` returns.

    `width` and `height` are those of displayed frames, in square pixels: after the sample aspect ratio and the display
    matrix. `rotation`: the degrees clockwise (0, 90, 180 or 270) by which the display matrix turns the stored frames, before
    it mirrors them. `fps` is the average rate. `num_frames` and `duration_s` are those of the video track alone, whatever the
    duration of the audio; it starts at `video_start_s`, where 0 s is where players start the file. Of `num_video_tracks`, the
    default one counts. `seek_points` let `decode_chunk` begin anywhere in a stream without an index; of others there are none.
    """

    codec: str
    width: int
    height: int
    rotation: int
    fps: Fraction
    num_frames: int
    duration_s: float
    has_audio: bool
    video_start_s: float = 0.0
    num_video_tracks: int = 1
    seek_points: tuple[SeekPoint, ...] = ()


@dataclass(frozen=True)
class _Survey:
    """What the packets of a track are: how many frames, the tick at which the last one ends, and the seek points."""

    num_frames: int
    end_tick: int
    seek_points: tuple[SeekPoint, ...] = ()


def probe(source: Source) -> VideoInfo:
    """Return a video's facts, from its index or, where it has none, by reading all packets.

    The first frame is decoded, so that a video that `probe` accepts has at least one. Raises `DecodeError`.
    """
    with open_video(source) as video:
        survey = _survey_index(video) if video.is_seekable else _survey_packets(video)
        if video.format_name in COUNTED_FORMATS:
            duration_s = survey.end_tick * time_base(video.stream)
        else:
            duration_s = max((survey.end_tick - video.origin_tick) * time_base(video.stream), Fraction(0))
        start_s, has_audio = float(video.start_s), bool(video.container.streams.audio)
    with open_video(source) as video:
        first = next(iter(video.container.decode(video.stream)), None)
        if first is None:
            raise DecodeError(video.uri, "contains no frame that can be decoded")
        rotation = Orientation.of(first).rotation
        width, height = Picture.of(video.stream).displayed_size(first.width, first.height)
        if rotation in (90, 270):
            width, height = height, width
        rate = video.fps or (survey.num_frames / duration_s if duration_s else Fraction(0))
        if not duration_s:
            if not rate:
                raise DecodeError(video.uri, "declares neither a duration nor a frame rate")
            duration_s = survey.num_frames / rate
        if video.format_name in COUNTED_FORMATS:  # its clock counts empty chunks too
            rate = survey.num_frames / duration_s
        return VideoInfo(
            codec=video.stream.codec_context.name,
            width=width,
            height=height,
            rotation=rotation,
            fps=Fraction(rate),
            num_frames=survey.num_frames,
            duration_s=float(duration_s),
            has_audio=has_audio,
            video_start_s=start_s,
            num_video_tracks=video.num_video_tracks,
            seek_points=survey.seek_points,
        )


def frame_times(source: Source) -> list[Fraction]:
    """Return the time in seconds at which each frame is shown, ascending, from the packets' presentation timestamps.

    Returns an empty list if some packets have none. Where the container only counts frames, they follow each other at
    its rate.
    """
    with open_video(source) as video:
        tick_s = time_base(video.stream)
        packets = video.packets() if video.clock is None else (placed.packet for placed in from_beginning(video))
        shown = [packet for packet in packets if packet.size and not packet.is_discard]
        if video.format_name in COUNTED_FORMATS:
            return [(i if packet.dts is None else packet.dts) * tick_s for i, packet in enumerate(shown)]
        if video.format_name in ELEMENTARY_FORMATS:
            return [i * video.frame_ticks * tick_s for i in range(len(shown))]
        ticks = [packet.pts for packet in shown if packet.pts is not None]
        return [(tick - video.origin_tick) * tick_s for tick in sorted(ticks)] if len(ticks) == len(shown) else []


def _survey_index(video: OpenVideo) -> _Survey:
    """Survey a track by its index and, where that does not list every frame, by all of its packets."""
    stream, container = video.stream, video.container
    entries = stream.index_entries
    is_complete = video.format_name in FULLY_INDEXED_FORMATS and 0 < stream.frames == len(entries)
    # With a complete index, the last GOP is enough to find the end.
    container.seek(_last_tick(stream) if is_complete else stream.start_time or 0, stream=stream, backward=True)
    num_packets, end_tick = 0, 0
    for packet in demux_declared_streams(container.demux(stream)):  # decoding detects what is missing in between
        if packet.size == 0 or packet.is_discard:
            continue
        num_packets += 1
        tick = packet.pts if packet.pts is not None else packet.dts
        if tick is not None:
            end_tick = max(end_tick, tick + video.duration_ticks(packet))
    num_frames = sum(not entry.is_discard for entry in entries) if is_complete else num_packets
    if is_complete and not num_packets:  # the index lists packets that the data lacks: decoding will report that
        end_tick = (stream.start_time or 0) + (stream.duration or 0)
    return _Survey(num_frames, end_tick)


def _survey_packets(video: OpenVideo) -> _Survey:
    """Survey a stream without an index in one pass over its packets."""
    num_frames, end_tick = 0, video.origin_tick
    points = _SeekPoints(video)
    is_counted, has_times = video.format_name in COUNTED_FORMATS, video.format_name not in ELEMENTARY_FORMATS
    for placed in from_beginning(video):
        packet = placed.packet
        if not packet.size or packet.is_discard:
            continue
        num_frames += 1
        tick = packet.dts if is_counted or packet.pts is None else packet.pts
        if not has_times:
            end_tick += video.frame_ticks
        elif tick is not None:
            end_tick = max(end_tick, tick + (1 if is_counted else video.duration_ticks(packet)))
        points.add(placed)
    if is_counted and num_frames:
        end_tick = video.end_of_repeats(end_tick - 1)
    return _Survey(num_frames, end_tick, tuple(points.found))


class _SeekPoints:
    """Collects seek points: a random access point every two seconds."""

    def __init__(self, video: OpenVideo) -> None:
        self.found: list[SeekPoint] = []
        self._test = _random_access_test(video)
        self._tick_s = time_base(video.stream)
        self._position: int | None = None
        self._is_counted = video.format_name in COUNTED_FORMATS
        self._origin_tick = 0 if self._is_counted else video.origin_tick
        self._has_vops = self._is_counted and video.stream.codec_context.name == "mpeg4"
        self._leads = False  # whether the packets since the last seek point are B-frames, which are shown before it

    def add(self, placed: PlacedPacket) -> None:
        packet, pts = placed.packet, placed.packet.dts if self._is_counted else placed.packet.pts
        if self._has_vops:
            self._count_leading_frames(packet)
        if packet.pos is not None and packet.pos >= 0:
            self._position = packet.pos
        if pts is None or packet.dts is None or self._position is None or packet.is_corrupt:
            return
        is_due = not self.found or (pts - self.found[-1].pts) * self._tick_s >= SEEK_POINT_INTERVAL_S
        if is_due and self._test(packet):
            time_us = round((pts - self._origin_tick) * self._tick_s * MICROSECONDS)
            point = SeekPoint(time_us, self._position, zlib.crc32(packet), int(pts), int(packet.dts), placed.offset)
            self.found.append(point)
            self._leads = True

    def _count_leading_frames(self, packet: VideoPacket) -> None:
        """Move the last seek point past a B-frame that follows it in an AVI file, where the number of a frame is its time."""
        coding_types = mpeg4_coding_types(memoryview(packet))
        if len(coding_types) > 1:  # a packed bitstream: the packet holds the B-frame of a later chunk
            self.found.clear()
            self._test = lambda packet: False
        self._leads = self._leads and coding_types == [MPEG_4_B]
        if self._leads and self.found and packet.dts is not None:
            time_us = round((packet.dts - self._origin_tick) * self._tick_s * MICROSECONDS)
            self.found[-1] = replace(self.found[-1], pts=packet.dts, time_us=time_us)


def _random_access_test(video: OpenVideo) -> Callable[[VideoPacket], bool]:
    """Return a test for packets at which decoding may begin with the same frames as in a pass over all of them."""
    codec = video.stream.codec_context
    if video.format_name in BROADCAST_FORMATS:
        return video.is_random_access
    if video.format_name in COUNTED_FORMATS:
        if codec.name == "h264":
            idr = ANNEX_B_RANDOM_ACCESS[codec.name]
            return lambda packet: idr.search(packet) is not None
        if codec.name == "mpeg4" or (codec.name in AVI_CODECS_WITH_KEY_FRAMES and not codec.has_b_frames):
            return lambda packet: packet.is_keyframe
    return lambda packet: False


def _last_tick(stream: VideoStream) -> int:
    return (stream.start_time or 0) + (stream.duration or 0)
