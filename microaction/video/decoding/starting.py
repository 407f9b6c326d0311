"""Where decoding begins: at the beginning, at a random access point of the container's index, or at a seek point.

A seek point is one of those that the catalog found in a stream without an index, so that a chunk costs the same wherever it
lies.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from typing import NamedTuple

from microaction.video.decoding.bitstream import MAX_REORDER, Structure
from microaction.video.decoding.container import OpenVideo, time_base
from microaction.video.decoding.damage import DAMAGE_ERRORS, LostDataError
from microaction.video.decoding.formats import AVI_CHUNK_HEADER_BYTES, COUNTED_FORMATS, FULLY_INDEXED_FORMATS
from microaction.video.decoding.sources import hint_byte_range
from microaction.video.decoding.timeline import Mark, PlacedPacket, SeekPoint, VideoPacket, place_packets

FIRST_STEP_BACK_S = 4
MAX_PACKETS_TO_SEEK_POINT = 200  # those that share a packet of a program stream with it, and precede it


class Start(NamedTuple):
    """Packets from a random access point, for frames shown at `pts` or later; `pts` None: from the start of the stream."""

    packets: Iterator[VideoPacket]
    pts: int | None


class SeekPointError(Exception):
    """The file does not have the packet that a seek point names."""


def at_beginning(video: OpenVideo) -> Start:
    """Start at the first packet."""
    if not video.is_seekable:  # where the container was opened
        return Start(video.packets(), None)
    entries = video.stream.index_entries
    first = min(video.origin_tick, entries[0].timestamp) if len(entries) else video.origin_tick
    video.container.seek(first, stream=video.stream, backward=True)
    return Start(_from_first_frame(video), None)


def at_seek_point(
    video: OpenVideo, seek_points: Sequence[SeekPoint], tick: int
) -> tuple[Iterator[PlacedPacket], int] | None:
    """Start at the last usable seek point for the frame shown at `tick`: placed packets, and the PTS from which frames are right.

    Returns None if there is none. Raises `SeekPointError` if the file has another packet there.
    """
    number = bisect_right([point.pts for point in seek_points], tick) - 1
    if number < 0:
        return None
    start_pts = seek_points[number].pts
    if video.stream.codec_context.name == "h264" and video.clock is not None:
        # Decoding at a recovery point begins without the frames that decoders count on: one group of pictures earlier.
        number -= 1
    if number < 0:
        return None
    point = seek_points[number]
    packets = _packets_from(video, point)
    if video.clock is None:
        return unplaced(packets), point.pts
    return place_packets(packets, video.clock, video.is_random_access, point), start_pts


def from_beginning(video: OpenVideo) -> Iterator[PlacedPacket]:
    """Yield all packets of a stream without an index, whose container was just opened."""
    packets = at_beginning(video).packets
    return unplaced(packets) if video.clock is None else place_packets(packets, video.clock, video.is_random_access)


def _packets_from(video: OpenVideo, point: SeekPoint) -> Iterator[VideoPacket]:
    try:
        if video.format_name in COUNTED_FORMATS:
            video.container.seek(point.dts, stream=video.stream, backward=True)
            packets = video.packets(first_chunk=point.position - AVI_CHUNK_HEADER_BYTES)
        else:
            video.container.seek(point.position, unsupported_byte_offset=True)
            packets = video.packets()
        for packet in islice(packets, MAX_PACKETS_TO_SEEK_POINT):
            if point.is_at(packet):
                return chain([packet], packets)
    except DAMAGE_ERRORS as error:
        raise SeekPointError from error
    raise SeekPointError


def unplaced(packets: Iterator[VideoPacket]) -> Iterator[PlacedPacket]:
    """Yield the packets of a container that states every frame's time."""
    return (PlacedPacket(packet, Mark.CONTINUES, 0) for packet in packets)


def _from_first_frame(video: OpenVideo) -> Iterator[VideoPacket]:
    """Yield the packets; raise `LostDataError` instead of the first one if a damaged index led past the video's beginning."""
    packets, held = video.packets(), []
    for packet in packets:
        held.append(packet)
        if packet.size and (packet.pts is None or packet.pts <= video.origin_tick):
            break
        if len(held) > MAX_REORDER:
            raise LostDataError
    yield from held
    yield from packets


def _hint_byte_range(video: OpenVideo, first_tick: int, last_tick: int) -> None:
    """Announce to a remote file which bytes hold the frames in between, and those read to be certain of the last one."""
    entries = video.stream.index_entries
    first = entries.search_timestamp(first_tick, backward=True)
    before = entries.search_timestamp(last_tick, backward=True, any_frame=True)
    if first < 0 or before < 0:
        return
    start, last = entries[first], entries[before]
    after = entries[min(before + 1, len(entries) - 1)]
    if video.format_name in FULLY_INDEXED_FORMATS:
        after = entries[min(before + MAX_REORDER + 1, len(entries) - 1)]
        end = after.pos + after.size
    elif after.timestamp > last.timestamp:  # one entry per GOP: estimate how much of the last GOP is needed
        ticks = last_tick + MAX_REORDER * video.frame_ticks - last.timestamp
        fraction = min(Fraction(ticks, after.timestamp - last.timestamp), Fraction(1))
        end = last.pos + int(fraction * (after.pos - last.pos))
    else:
        return
    hint_byte_range(video.file, range(start.pos, end))


def in_index(video: OpenVideo, tick: int, last_tick: int, structure: Structure | None) -> Start:
    """Seek to the last random access point found from which the frame shown at `tick` can be decoded, or to the beginning.

    Frames up to the one shown at `last_tick` will be read.
    """
    step_back = 0
    while tick - step_back > video.origin_tick:
        # The index uses decoding timestamps and the container's key frame flags, so the packet that it finds is checked.
        video.container.seek(tick - step_back, stream=video.stream, backward=True)
        _hint_byte_range(video, tick, last_tick)
        packets = video.packets()
        for packet in packets:
            if packet.pts is None or packet.pts > tick:
                break
            if packet.is_keyframe if structure is None else structure.kind_of(memoryview(packet)).is_random_access:
                return Start(chain([packet], packets), packet.pts)
        step_back = 2 * step_back or int(FIRST_STEP_BACK_S / time_base(video.stream))
    beginning = at_beginning(video)
    _hint_byte_range(video, video.origin_tick, last_tick)
    return beginning
