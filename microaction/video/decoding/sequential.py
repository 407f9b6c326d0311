"""Decoding everything, in order: for streams whose packets do not say enough to leave any out."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import av
import numpy as np

from microaction.video.decoding.container import DAMAGE, OpenVideo, VideoPacket, reason_of
from microaction.video.decoding.formats import COUNTED_FORMATS
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame

# A damaged packet may show only when its frame comes out, after frames that refer to it: a frame is given once so many more
# packets were decoded without complaint. H.264 and HEVC reorder by 16 frames at most, each of up to two packets (fields).
DELAY_PACKETS = 32
RANDOM_ACCESS_POINTS_BEFORE_RESUMING = 2


class _Frame(NamedTuple):
    start: int  # ticks, or frames where the container only counts them
    length: int
    picture: Callable[[], np.ndarray]
    num_packets: int  # decoded when it came out


class SequentialPass:
    """Decodes from where the container stands until the targets from number `first` to `stop` (exclusive) are answered.

    After the first sign of damage nothing is given, the frames of the last 32 packets included, until the second packet
    for which `is_start` is true: with it decoding starts anew, for frames shown at its time or later. `start_pts`: so it does
    with the first packet.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: Iterator[VideoPacket],
        to_picture: Callable[[av.VideoFrame], np.ndarray],
        *,
        first: int,
        stop: int,
        start_pts: int | None = None,
        is_start: Callable[[memoryview], bool] | None = None,
    ) -> None:
        self._video, self._packets, self._to_picture = video, packets, to_picture
        self._codec = video.stream.codec_context
        self._next_target, self._stop = first, stop
        self._start_pts, self._is_start = start_pts, is_start
        self._num_packets = 0
        self._held: deque[tuple[int, TargetFrame]] = deque()  # (packets decoded when it came out, answer)
        self._damage = self._past_damage = ""
        self._num_starts = 0

    def at_indices(self, targets: AtIndices) -> Iterator[TargetFrame]:
        """Frame i is the i-th that comes out; after damage none can be counted."""
        num_frames = 0
        for frame in self._frames():
            if frame is None:
                break
            if self._next_target < self._stop and num_frames == targets.indices[self._next_target]:
                self._hold(frame, self._next_target)
            num_frames += 1
            yield from self._release()
            if self._is_done:
                return
        if not self._damage:
            yield from self._release(all_of_them=True)
        yield from self._give_up(self._stop, lambda target: targets.missing(target, num_frames, 0))

    def at_times(self, targets: AtTimes) -> Iterator[TargetFrame]:
        current: _Frame | None = None
        is_first = True
        for following in self._frames():
            if following is None:
                yield from self._give_up(self._next_target)
            elif current is not None:
                self._hold(current, self._last_target_before(following.start, targets))
            elif not is_first:  # the first frame after damage
                yield from self._give_up(self._last_target_before(following.start, targets) + 1)
            current, is_first = following, False
            yield from self._release()
            if self._is_done:
                return
        end = 0
        if current is not None:
            end = current.start + current.length
            there = range(self._next_target, self._stop)
            self._hold(current, max((target for target in there if not targets.missing(target, 1, end)), default=-1))
            yield from self._release(all_of_them=True)
        yield from self._give_up(self._stop, lambda target: targets.missing(target, 1, end))

    @property
    def _is_done(self) -> bool:
        return self._next_target == self._stop and not self._held

    def _last_target_before(self, start: int, targets: AtTimes) -> int:
        last = self._next_target - 1
        while last + 1 < self._stop and targets.tick(last + 1) < start:
            last += 1
        return last

    def _hold(self, frame: _Frame, last: int) -> None:
        if last >= self._next_target:
            self._held.append((frame.num_packets, TargetFrame(self._next_target, last, frame.picture())))
            self._next_target = last + 1

    def _release(self, *, all_of_them: bool = False) -> Iterator[TargetFrame]:
        while self._held and (all_of_them or self._held[0][0] + DELAY_PACKETS <= self._num_packets):
            yield self._held.popleft()[1]

    def _give_up(self, stop: int, why: Callable[[int], str] = lambda target: "") -> Iterator[TargetFrame]:
        for _, found in self._held:
            yield found._replace(image=None, reason=self._damage or self._past_damage)
        self._held.clear()
        for target in range(self._next_target, stop):
            yield TargetFrame(target, target, None, self._damage or why(target) or self._past_damage)
        self._next_target = max(self._next_target, stop)

    def _frames(self) -> Iterator[_Frame | None]:
        """Frames as they come out; None where damage interrupts them."""
        previous: _Frame | None = None
        for frame in self._decoded():
            if frame is None:
                previous = None
                yield None
                continue
            next_start = 0 if previous is None else previous.start + previous.length
            if self._video.format in COUNTED_FORMATS:
                # Empty packets, which repeat a frame, count; with frames out of order only the frames can be counted.
                counts_packets = frame.dts is not None and not self._codec.has_b_frames
                start, length = frame.dts if counts_packets and frame.dts is not None else next_start, 1
            else:
                start = next_start if frame.pts is None else frame.pts
                length = frame.duration or self._video.frame_ticks
            if previous is not None and start <= previous.start:
                self._damage = "damaged: the times of its frames contradict their order"
                yield None
                return
            previous = _Frame(start, length, partial(self._to_picture, frame), self._num_packets)
            yield previous

    def _decoded(self) -> Iterator[av.VideoFrame | None]:
        for packet in self._all_packets():
            if self._damage:
                if packet is None:
                    yield None
                    return
                if not self._may_resume(packet):
                    continue
                self._start_pts, self._past_damage, self._damage = packet.pts, self._damage, ""
                self._codec.flush_buffers()
            try:
                frames = self._video.decode(packet)
                self._num_packets += 1
                if packet is not None and packet.is_corrupt:
                    self._damage = "damaged: a part of its data is missing"
            except DAMAGE as error:
                frames, self._damage = [], reason_of(error)
            for frame in frames:
                if self._start_pts is not None and (frame.pts is None or frame.pts < self._start_pts):
                    continue  # it refers to what was not decoded
                if frame.is_corrupt:
                    where = "" if frame.pts is None else f" at {self._video.seconds(frame.pts):.3f} s"
                    self._damage = f"damaged: the frame{where} cannot be decoded"
                if self._damage:
                    break
                yield frame
            if self._damage:
                self._num_starts = 0
                yield None

    def _may_resume(self, packet: VideoPacket) -> bool:
        """At the second start since the last sign of damage: the first may be put together from two others."""
        if self._is_start is None or packet.is_corrupt:
            self._num_starts = 0
        elif packet.pts is not None and self._is_start(memoryview(packet)):
            self._num_starts += 1
        return self._num_starts == RANDOM_ACCESS_POINTS_BEFORE_RESUMING

    def _all_packets(self) -> Iterator[VideoPacket | None]:
        """The packets with data, then None, with which the decoder gives what it still holds."""
        try:
            yield from (packet for packet in self._packets if packet.size)
        except DAMAGE as error:
            self._damage = reason_of(error)
        yield None
