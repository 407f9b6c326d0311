"""Facts about a video, read from its container: codec, size, duration and timestamps."""

from dataclasses import dataclass
from fractions import Fraction

from av.video.stream import VideoStream

from microaction.errors import DecodeError
from microaction.video.decoding.container import (
    OpenVideo,
    clockwise_rotation,
    demux_declared_streams,
    open_video,
    time_base,
)
from microaction.video.decoding.formats import COUNTED_FORMATS, FULLY_INDEXED_FORMATS
from microaction.video.decoding.sources import Source


@dataclass(frozen=True)
class VideoInfo:
    """The facts that `probe` returns.

    `width` and `height` are those of displayed frames, after `rotation`: the degrees clockwise (0, 90, 180 or 270) by
    which the display matrix turns the stored frames. `fps` is the average rate. `num_frames` and `duration_s` are those
    of the video stream alone, whatever the duration of the audio.
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
    """Return a video's facts, from its index or, where it has none, by reading all packets.

    The first frame is decoded, so that a video that `probe` accepts has at least one. Raises `DecodeError`.
    """
    with open_video(source) as video:
        first = next(iter(video.container.decode(video.stream)), None)
        if first is None:
            raise DecodeError(video.uri, "contains no frame that can be decoded")
        rotation = clockwise_rotation(first)
        width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
        num_frames, end_s = _count_frames(video)
        duration_s = max(end_s - video.origin_s, Fraction(0))
        rate = video.stream.average_rate or video.stream.guessed_rate
        if not rate:
            rate = num_frames / duration_s if duration_s else Fraction(0)
        if video.format_name in COUNTED_FORMATS or not duration_s:
            if not rate:
                raise DecodeError(video.uri, "declares neither a duration nor a frame rate")
            duration_s = num_frames / rate
        return VideoInfo(
            codec=video.stream.codec_context.name,
            width=width,
            height=height,
            rotation=rotation,
            fps=Fraction(rate),
            num_frames=num_frames,
            duration_s=float(duration_s),
            has_audio=bool(video.container.streams.audio),
        )


def frame_times(source: Source) -> list[Fraction]:
    """Return the time in seconds at which each frame is shown, ascending, from the packets' presentation timestamps.

    Returns an empty list if some packets have none. Where the container only counts frames, they follow each other at
    its rate.
    """
    with open_video(source) as video:
        shown = [packet for packet in video.packets() if packet.size and not packet.is_discard]
        if video.format_name in COUNTED_FORMATS and video.fps:
            return [(packet.dts if packet.dts is not None else i) / video.fps for i, packet in enumerate(shown)]
        ticks = [packet.pts for packet in shown if packet.pts is not None]
        tick_s = time_base(video.stream)
        return [(tick - video.origin_tick) * tick_s for tick in sorted(ticks)] if len(ticks) == len(shown) else []


def _count_frames(video: OpenVideo) -> tuple[int, Fraction]:
    """Return the number of frames that are shown, and the time on the stream's clock at which the last one ends."""
    stream, container = video.stream, video.container
    entries = stream.index_entries
    is_indexed = video.format_name in FULLY_INDEXED_FORMATS and 0 < stream.frames == len(entries)
    # With a complete index, the last GOP is enough to find the end; without one, every packet is read.
    container.seek(_last_tick(stream) if is_indexed else stream.start_time or 0, stream=stream, backward=True)
    num_packets, end_tick = 0, 0
    for packet in demux_declared_streams(container.demux(stream)):  # decoding detects what is missing in between
        if packet.size == 0 or packet.is_discard:
            continue
        num_packets += 1
        tick = packet.pts if packet.pts is not None else packet.dts
        if tick is not None:
            end_tick = max(end_tick, tick + video.duration_ticks(packet))
    num_frames = sum(not entry.is_discard for entry in entries) if is_indexed else num_packets
    if is_indexed and not num_packets:  # the index lists packets that the data lacks: decoding will report that
        end_tick = (stream.start_time or 0) + (stream.duration or 0)
    return num_frames, end_tick * time_base(stream)


def _last_tick(stream: VideoStream) -> int:
    return (stream.start_time or 0) + (stream.duration or 0)
