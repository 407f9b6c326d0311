"""What a video is: its codec, size, length, and when its frames are shown. Bytes in, no pictures out."""

from dataclasses import dataclass
from fractions import Fraction

from av.video.stream import VideoStream

from microaction.errors import DecodeError
from microaction.video.decoding.container import (
    OpenVideo,
    Source,
    clockwise_rotation,
    demux_declared_streams,
    open_video,
    time_base,
)
from microaction.video.decoding.formats import COUNTED_FORMATS, FULLY_INDEXED_FORMATS


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


def _count_frames(video: OpenVideo) -> tuple[int, Fraction]:
    """The number of frames that are shown, and the time, by the stream's clock, at which the last one ends."""
    stream, container = video.stream, video.container
    entries = stream.index_entries
    indexed = video.format in FULLY_INDEXED_FORMATS and 0 < stream.frames == len(entries)
    # A whole index makes the last group of pictures enough to know the end; without one every packet is read.
    container.seek(_last_tick(stream) if indexed else stream.start_time or 0, stream=stream, backward=True)
    num_packets, end = 0, 0
    for packet in demux_declared_streams(container.demux(stream)):  # what is lost in between is for decoding to find
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
