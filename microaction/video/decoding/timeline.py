"""One timeline for streams without an index, whose clock may start again, wrap, jitter or be missing from most packets.

Recorders and people join recordings, so that times start again; program streams put several frames into a packet with one
time; browsers round times so that two frames share one. None of that is damage. This module gives each packet the time at
which players show it, and the catalog stores some of these times as seek points, so that decoding may begin anywhere.

Ticks are those of the stream's clock.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import av
from av.video.stream import VideoStream

from microaction.video.decoding.damage import DAMAGE_ERRORS

if TYPE_CHECKING:
    VideoPacket: TypeAlias = av.Packet[VideoStream]
else:
    VideoPacket = av.Packet  # generic for type checkers only

# A time that is off by no more than the longer of both is inaccurate, not wrong.
JITTER_FRAMES, MIN_JITTER_S = 3, Fraction(1, 10)
# In a broadcast, a longer step of the clock is a new recording, not a pause. Source: FFmpeg's dts_delta_threshold.
MAX_STEP_S = 10
NUM_FOLLOWING = 2  # FFmpeg reports a gap one packet before the last one of a recording


class Mark(Enum):
    """What a packet is to the timeline: it continues it, is the last or the first of a recording, or contradicts it."""

    CONTINUES = "continues"
    ENDS = "ends"
    RESTARTS = "restarts"
    CONTRADICTS = "contradicts"


class PlacedPacket(NamedTuple):
    """A packet with timestamps on the timeline. `offset`: ticks that were added to those of the file."""

    packet: VideoPacket
    mark: Mark
    offset: int


@dataclass(frozen=True)
class SeekPoint:
    """A random access point of a stream without an index, from which decoding can begin.

    `time_us`: when its frame is shown, from the start of the video track. `position`: byte at which reading begins; the
    packet is the next one with the checksum `crc32`. `pts` and `dts`: its timestamps on the timeline, in ticks; in AVI,
    numbers of chunks. `offset`: ticks between the file's timestamps and the timeline's.
    """

    time_us: int
    position: int
    crc32: int
    pts: int
    dts: int
    offset: int

    def is_at(self, packet: VideoPacket) -> bool:
        """Return whether this is the packet."""
        return zlib.crc32(packet) == self.crc32


@dataclass(frozen=True)
class Clock:
    """The rules of a stream's clock.

    `frame_ticks`: duration of a frame. `has_times`: whether packets have timestamps at all. `jitter_ticks`: by how much times
    may be inaccurate. `is_constant`: frames follow each other at a constant rate; only times that differ by more than the
    jitter change that. `max_step_ticks`: a longer step forward begins another recording; None: no step does.
    """

    frame_ticks: int
    has_times: bool
    jitter_ticks: int
    is_constant: bool
    max_step_ticks: int | None


def place_packets(
    packets: Iterator[VideoPacket],
    clock: Clock,
    is_random_access: Callable[[VideoPacket], bool],
    start: SeekPoint | None = None,
) -> Iterator[PlacedPacket]:
    """Yield the packets with their timestamps moved onto the timeline. The first one is at `start` if that is given.

    Where the clock jumps at a random access point and goes on from there, another recording begins, and the timeline
    continues with it. A packet whose time jumps alone contradicts the timeline.
    """
    placing = _Placing(clock, is_random_access, start)
    for packet, following in _with_following(packet for packet in packets if packet.size):
        yield placing.place(packet, following)


def _with_following(packets: Iterator[VideoPacket]) -> Iterator[tuple[VideoPacket, list[VideoPacket]]]:
    """Yield each packet with the next two. An error of the iterator is raised after the last packet before it."""
    held: deque[VideoPacket] = deque()
    try:
        for packet in packets:
            held.append(packet)
            if len(held) > NUM_FOLLOWING:
                yield held.popleft(), list(held)
    except DAMAGE_ERRORS as error:
        failure: Exception | None = error
    else:
        failure = None
    while held:
        yield held.popleft(), list(held)
    if failure is not None:
        raise failure


class _Placing:
    def __init__(self, clock: Clock, is_random_access: Callable[[VideoPacket], bool], start: SeekPoint | None) -> None:
        self._clock = clock
        self._is_random_access = is_random_access
        self._start = start
        self._offset = start.offset if start else 0
        self._next_dts: int | None = None  # where the next packet is expected
        self._end = 0  # of the last frame shown so far

    def place(self, packet: VideoPacket, following: Sequence[VideoPacket]) -> PlacedPacket:
        """Return the next packet with its place on the timeline. `following` are the next two, as the file has them."""
        if not self._clock.has_times:
            packet.pts = packet.dts = None
            return PlacedPacket(packet, Mark.CONTINUES, 0)
        duration = packet.duration or self._clock.frame_ticks
        mark = Mark.CONTINUES
        pts: int | None
        dts: int | None
        time = _time_of(packet)
        if self._start is not None:
            pts, dts = self._start.pts, self._start.dts
            self._start = None
        elif time is None:
            pts, dts = None, self._next_dts
        else:
            if not self._continues(time + self._offset):
                if not self._is_confirmed(packet, following) or not self._is_random_access(packet):
                    return PlacedPacket(packet, Mark.CONTRADICTS, self._offset)
                mark = Mark.RESTARTS
                self._offset = self._end - (packet.pts if packet.pts is not None else time)
            shift = self._offset
            if self._clock.is_constant and self._next_dts is not None and mark is Mark.CONTINUES:
                inaccuracy = self._next_dts - time - self._offset
                shift += inaccuracy if abs(inaccuracy) <= self._clock.jitter_ticks else 0
            pts, dts = None if packet.pts is None else packet.pts + shift, time + shift
        packet.pts, packet.dts = pts, dts
        if dts is not None:
            self._next_dts = dts + duration
            self._end = max(self._end, (dts if pts is None else pts) + duration)
        if mark is Mark.CONTINUES and any(self._begins_recording(later) for later in following):
            mark = Mark.ENDS
        return PlacedPacket(packet, mark, self._offset)

    def _begins_recording(self, packet: VideoPacket) -> bool:
        time = _time_of(packet)
        return time is not None and not self._continues(time + self._offset) and self._is_random_access(packet)

    def _continues(self, dts: int) -> bool:
        if self._next_dts is None:
            return True
        step, max_step = dts - self._next_dts, self._clock.max_step_ticks
        return -self._clock.jitter_ticks - self._clock.frame_ticks <= step and (max_step is None or step <= max_step)

    def _is_confirmed(self, packet: VideoPacket, following: Sequence[VideoPacket]) -> bool:
        """Return whether the next packet goes on from this one's time."""
        if not following or following[0].dts is None or packet.dts is None:
            return True  # nothing contradicts it
        step, max_step = following[0].dts - packet.dts, self._clock.max_step_ticks
        return step >= 0 and (max_step is None or step <= max_step)


def _time_of(packet: VideoPacket) -> int | None:
    """Return the time of a packet that ascends in the order of decoding."""
    return packet.pts if packet.dts is None else packet.dts
