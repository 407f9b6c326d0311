"""The frames that cost least to decode: key frames, each from its own packet alone."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from microaction.video.decoding.bitstream import Structure, structure_of
from microaction.video.decoding.container import OpenVideo, open_video, time_base
from microaction.video.decoding.damage import DAMAGE_ERRORS
from microaction.video.decoding.formats import COUNTED_FORMATS
from microaction.video.decoding.picture import Picture
from microaction.video.decoding.rgb import RgbConverter
from microaction.video.decoding.sources import Source
from microaction.video.decoding.starting import SeekPointError, at_seek_point, from_beginning, in_index, unplaced
from microaction.video.decoding.timeline import PlacedPacket, SeekPoint, VideoPacket
from microaction.video.windows import MICROSECONDS, Span


class KeyFrame(NamedTuple):
    """A key frame [H, W, 3] (uint8 RGB, as displayed) and when it is shown, in microseconds from the track's start."""

    time_us: int
    frame_HWC: np.ndarray


def key_frames(source: Source, span: Span, every_us: int, seek_points: Sequence[SeekPoint] = ()) -> Iterator[KeyFrame]:
    """Yield the first key frame that is shown in each of the equal parts of the timeline of `every_us`, within `span`.

    Parts without a key frame, or with one that cannot be decoded by itself, are left out, and so is what follows damage.
    `span` must start at a multiple of `every_us`. `seek_points` are those that `probe` found. Raises `DecodeError` if the
    source is not a readable video.
    """
    with open_video(source) as video:
        try:
            packets = _packets(video, span, seek_points)
        except SeekPointError:
            packets = None
        if packets is not None:
            yield from _decoded(video, packets, span, every_us)
            return
    with open_video(source) as video:
        yield from _decoded(video, from_beginning(video), span, every_us)


def _packets(video: OpenVideo, span: Span, seek_points: Sequence[SeekPoint]) -> Iterator[PlacedPacket]:
    first, last = (_tick(video, time_us) for time_us in span)
    if video.is_seekable:
        return unplaced(in_index(video, first, last, _structure(video)).packets)
    found = at_seek_point(video, seek_points, first)
    return from_beginning(video) if found is None else found[0]


def _decoded(video: OpenVideo, packets: Iterator[PlacedPacket], span: Span, every_us: int) -> Iterator[KeyFrame]:
    to_rgb = RgbConverter(Picture.of(video.stream))
    structure, is_counted = _structure(video), video.format_name in COUNTED_FORMATS
    part = -1
    try:
        for packet, _, _ in packets:
            tick = packet.dts if is_counted else packet.pts
            if not packet.size or packet.is_discard or packet.is_corrupt or tick is None:
                continue
            time_us = _time_us(video, tick)
            is_key = _is_key(video, packet, structure)
            if is_key and time_us >= span.end_us:
                return
            if not is_key or time_us < span.start_us or time_us // every_us <= part:
                continue
            frame_HWC = _alone(video, packet, to_rgb)
            if frame_HWC is not None:
                part = time_us // every_us
                yield KeyFrame(time_us, frame_HWC)
    except DAMAGE_ERRORS:
        return


def _alone(video: OpenVideo, packet: VideoPacket, to_rgb: RgbConverter) -> np.ndarray | None:
    """Return the frame of a packet that is decoded by itself, or None if that gives none or a damaged one."""
    codec = video.stream.codec_context
    codec.flush_buffers()
    try:
        frames = [*video.decode(packet), *video.decode(None)]
    except DAMAGE_ERRORS:
        frames = []
    codec.flush_buffers()
    if len(frames) != 1 or frames[0].is_corrupt:
        return None
    return to_rgb(frames[0])


def _is_key(video: OpenVideo, packet: VideoPacket, structure: Structure | None) -> bool:
    if not video.is_seekable:
        return video.is_random_access(packet)
    return packet.is_keyframe if structure is None else structure.kind_of(memoryview(packet)).is_random_access


def _structure(video: OpenVideo) -> Structure | None:
    codec = video.stream.codec_context
    return structure_of(codec.name, codec.extradata)


def _origin_tick(video: OpenVideo) -> int:
    return 0 if video.format_name in COUNTED_FORMATS else video.origin_tick


def _time_us(video: OpenVideo, tick: int) -> int:
    return round((tick - _origin_tick(video)) * time_base(video.stream) * MICROSECONDS)


def _tick(video: OpenVideo, time_us: int) -> int:
    return _origin_tick(video) + int(Fraction(time_us, MICROSECONDS) / time_base(video.stream))
