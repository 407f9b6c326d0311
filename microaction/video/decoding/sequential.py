"""Decodes every packet in order: for streams whose packets do not reveal which of them may be left out."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import av
import numpy as np

from microaction.video.decoding.container import OpenVideo, VideoPacket
from microaction.video.decoding.damage import DAMAGE_ERRORS, reason_of
from microaction.video.decoding.formats import COUNTED_FORMATS
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame

# A damaged packet may be detected only when its frame is output, after frames that refer to it. A frame is therefore yielded
# once this many more packets were decoded without an error. H.264 and HEVC reorder by at most 16 frames of up to two packets
# (fields) each.
DELAY_PACKETS = 32
RANDOM_ACCESS_POINTS_BEFORE_RESUMING = 2


class _DecodedFrame(NamedTuple):
    start: int  # in ticks, or in frames where the container only counts them
    duration: int
    to_image: Callable[[], np.ndarray]
    num_packets: int  # decoded by the time that it was output


class SequentialPass:
    """Decodes from the container's present position until the targets from `first` to `stop` (exclusive) have a result.

    After the first sign of damage it yields no frame, including those of the last 32 packets, until the second packet
    for which `is_random_access` is true. There it resumes, for frames shown at that packet's timestamp or later. In the
    same way, `start_pts` limits the frames after the first packet.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: Iterator[VideoPacket],
        to_image: Callable[[av.VideoFrame], np.ndarray],
        *,
        first: int,
        stop: int,
        start_pts: int | None = None,
        is_random_access: Callable[[memoryview], bool] | None = None,
    ) -> None:
        self._video, self._packets, self._to_image = video, packets, to_image
        self._codec = video.stream.codec_context
        self._next_target, self._stop = first, stop
        self._start_pts, self._is_random_access = start_pts, is_random_access
        self._num_packets = 0
        self._held: deque[tuple[int, TargetFrame]] = deque()  # (packets decoded by the time of its output, frame)
        self._damage = self._earlier_damage = ""
        self._num_random_access = 0

    def at_indices(self, targets: AtIndices) -> Iterator[TargetFrame]:
        """Yield the targets: frame i is the i-th one that the decoder outputs; after damage, frames cannot be counted."""
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
            yield from self._release(release_all=True)
        yield from self._report_missing(self._stop, lambda target: targets.missing_reason(target, num_frames, 0))

    def at_times(self, targets: AtTimes) -> Iterator[TargetFrame]:
        """Yield the targets: a frame is on the screen until the next one starts."""
        current: _DecodedFrame | None = None
        is_first = True
        for following in self._frames():
            if following is None:
                yield from self._report_missing(self._next_target)
            elif current is not None:
                self._hold(current, self._last_target_before(following.start, targets))
            elif not is_first:  # the first frame after damage
                yield from self._report_missing(self._last_target_before(following.start, targets) + 1)
            current, is_first = following, False
            yield from self._release()
            if self._is_done:
                return
        end = 0
        if current is not None:
            end = current.start + current.duration
            remaining = range(self._next_target, self._stop)
            present = (target for target in remaining if not targets.missing_reason(target, 1, end))
            self._hold(current, max(present, default=-1))
            yield from self._release(release_all=True)
        yield from self._report_missing(self._stop, lambda target: targets.missing_reason(target, 1, end))

    @property
    def _is_done(self) -> bool:
        return self._next_target == self._stop and not self._held

    def _last_target_before(self, start: int, targets: AtTimes) -> int:
        last = self._next_target - 1
        while last + 1 < self._stop and targets.tick(last + 1) < start:
            last += 1
        return last

    def _hold(self, frame: _DecodedFrame, last: int) -> None:
        if last >= self._next_target:
            self._held.append((frame.num_packets, TargetFrame(self._next_target, last, frame.to_image())))
            self._next_target = last + 1

    def _release(self, *, release_all: bool = False) -> Iterator[TargetFrame]:
        while self._held and (release_all or self._held[0][0] + DELAY_PACKETS <= self._num_packets):
            yield self._held.popleft()[1]

    def _report_missing(self, stop: int, reason: Callable[[int], str] = lambda target: "") -> Iterator[TargetFrame]:
        """Yield the held frames and the targets before `stop` as missing."""
        for _, held in self._held:
            yield held._replace(image=None, reason=self._damage or self._earlier_damage)
        self._held.clear()
        for target in range(self._next_target, stop):
            yield TargetFrame(target, target, None, self._damage or reason(target) or self._earlier_damage)
        self._next_target = max(self._next_target, stop)

    def _frames(self) -> Iterator[_DecodedFrame | None]:
        """Yield the frames in the order of output; None where damage interrupts them."""
        previous: _DecodedFrame | None = None
        for frame in self._decoded():
            if frame is None:
                previous = None
                yield None
                continue
            next_start = 0 if previous is None else previous.start + previous.duration
            if self._video.format_name in COUNTED_FORMATS:
                # Empty packets, which repeat a frame, count too. With reordered frames only the frames can be counted.
                counts_packets = frame.dts is not None and not self._codec.has_b_frames
                start, duration = frame.dts if counts_packets and frame.dts is not None else next_start, 1
            else:
                start = next_start if frame.pts is None else frame.pts
                duration = frame.duration or self._video.frame_ticks
            if previous is not None and start <= previous.start:
                self._damage = "damaged: the timestamps of its frames contradict their order"
                yield None
                return
            previous = _DecodedFrame(start, duration, partial(self._to_image, frame), self._num_packets)
            yield previous

    def _decoded(self) -> Iterator[av.VideoFrame | None]:
        for packet in self._all_packets():
            if self._damage:
                if packet is None:
                    yield None
                    return
                if not self._may_resume(packet):
                    continue
                self._start_pts, self._earlier_damage, self._damage = packet.pts, self._damage, ""
                self._codec.flush_buffers()
            try:
                frames = self._video.decode(packet)
                self._num_packets += 1
                if packet is not None and packet.is_corrupt:
                    self._damage = "damaged: a part of its data is missing"
            except DAMAGE_ERRORS as error:
                frames, self._damage = [], reason_of(error)
            for frame in frames:
                if self._start_pts is not None and (frame.pts is None or frame.pts < self._start_pts):
                    continue  # it refers to frames that were not decoded
                if frame.is_corrupt:
                    where = "" if frame.pts is None else f" at {self._video.seconds(frame.pts):.3f} s"
                    self._damage = f"damaged: the frame{where} cannot be decoded"
                if self._damage:
                    break
                yield frame
            if self._damage:
                self._num_random_access = 0
                yield None

    def _may_resume(self, packet: VideoPacket) -> bool:
        """Return whether this is the second random access point after damage: the first may be spliced from two others."""
        if self._is_random_access is None or packet.is_corrupt:
            self._num_random_access = 0
        elif packet.pts is not None and self._is_random_access(memoryview(packet)):
            self._num_random_access += 1
        return self._num_random_access == RANDOM_ACCESS_POINTS_BEFORE_RESUMING

    def _all_packets(self) -> Iterator[VideoPacket | None]:
        """Yield the packets that have data, then None, which drains the decoder."""
        try:
            yield from (packet for packet in self._packets if packet.size)
        except DAMAGE_ERRORS as error:
            self._damage = reason_of(error)
        yield None
