"""Decodes every packet in order: for streams whose packets do not reveal which of them may be left out."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import av
import numpy as np

from microaction.video.decoding.container import OpenVideo
from microaction.video.decoding.damage import DAMAGE_ERRORS, reason_of
from microaction.video.decoding.formats import COUNTED_FORMATS
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame
from microaction.video.decoding.timeline import Mark, PlacedPacket, VideoPacket

# A damaged packet may be detected only when its frame is output, after frames that refer to it. A frame is therefore yielded
# once this many more packets were decoded without an error. H.264 and HEVC reorder by at most 16 frames of up to two packets
# (fields) each.
DELAY_PACKETS = 32
RANDOM_ACCESS_POINTS_BEFORE_RESUMING = 2


# Their frames may be shown in another order than they are stored in.
CODECS_WITH_REORDERING = ("h264", "hevc")
WRONG_TIME = "damaged: the timestamps of its frames contradict their order"


class _DecodedFrame(NamedTuple):
    start: int  # in ticks; in AVI, the number of a chunk
    duration: int
    to_image: Callable[[], np.ndarray]
    num_packets: int  # decoded by the time that it was output


class SequentialPass:
    """Decodes from the container's present position until the targets from `first` to `stop` (exclusive) have a result.

    After the first sign of damage it yields no frame, including those of the last 32 packets, until the second random
    access point, if the stream has a clock (`OpenVideo.clock`). There it resumes, for frames shown at that packet's timestamp
    or later. In the same way, `start_pts` limits the frames after the first packet. Of frames with the same time, and of those
    whose times step back by less than the jitter, the last one is on the screen.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: Iterator[PlacedPacket],
        to_image: Callable[[av.VideoFrame], np.ndarray],
        *,
        first: int,
        stop: int,
        start_pts: int | None = None,
    ) -> None:
        self._video, self._packets, self._to_image = video, packets, to_image
        self._codec = video.stream.codec_context
        self._next_target, self._stop = first, stop
        self._start_pts, self._resumes = start_pts, video.clock is not None
        self._num_packets = 0
        self._chunk_numbers: deque[int] = deque()  # AVI: of the packets whose frames are still to come
        self._held: deque[tuple[int, TargetFrame]] = deque()  # (packets decoded by the time of its output, frame)
        self._damage = self._earlier_damage = ""
        self._num_random_access = 0
        self._is_start_shown = False  # whether the random access point's own frame was output

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
            if self._video.format_name in COUNTED_FORMATS:
                end = self._video.end_of_repeats(current.start)
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
        is_counted = self._video.format_name in COUNTED_FORMATS
        for frame in self._decoded():
            if frame is None:
                previous = None
                yield None
                continue
            if is_counted:
                start, duration = self._chunk_number(frame), 1
            elif frame.pts is None:
                start = self._video.origin_tick if previous is None else previous.start + previous.duration
                duration = frame.duration or self._video.frame_ticks
            else:
                start, duration = frame.pts, frame.duration or self._video.frame_ticks
            if previous is not None and start < previous.start:
                if previous.start - start > self._video.jitter_ticks:
                    self._damage = WRONG_TIME
                    yield None
                    return
                start = previous.start
            previous = _DecodedFrame(start, duration, partial(self._to_image, frame), self._num_packets)
            yield previous

    def _chunk_number(self, frame: av.VideoFrame) -> int:
        """Return the number of an AVI frame's chunk. Empty chunks, which repeat a frame, have numbers too.

        With reordered frames, the i-th frame that is shown has the number of the i-th chunk that is not empty.
        """
        is_reordered = self._codec.has_b_frames or self._codec.name in CODECS_WITH_REORDERING
        if frame.dts is not None and not is_reordered:
            while self._chunk_numbers and self._chunk_numbers[0] <= frame.dts:
                self._chunk_numbers.popleft()
            return frame.dts
        while self._start_pts is not None and self._chunk_numbers and self._chunk_numbers[0] < self._start_pts:
            self._chunk_numbers.popleft()  # of a B-frame that refers to a frame that was not decoded
        return self._chunk_numbers.popleft() if self._chunk_numbers else 0

    def _decoded(self) -> Iterator[av.VideoFrame | None]:
        for packet, mark in self._all_packets():
            if mark is Mark.RESTARTS:
                yield from self._restart(packet)
            elif mark is Mark.CONTRADICTS and not self._damage:
                self._damage, self._num_random_access = WRONG_TIME, 0
                yield None
            if self._damage:
                if packet is None:
                    yield None
                    return
                if not self._may_resume(packet, mark):
                    continue
                self._resume(packet)
            yield from self._decode(packet, mark)

    def _decode(self, packet: VideoPacket | None, mark: Mark = Mark.CONTINUES) -> Iterator[av.VideoFrame | None]:
        """Yield the frames that the decoder outputs for a packet, and None at the first sign of damage."""
        if packet is not None and packet.dts is not None:
            self._chunk_numbers.append(packet.dts)
        try:
            frames = self._video.decode(packet)
            self._num_packets += 1
            # At the end of a recording FFmpeg misses the packets that would follow, and takes the last one for incomplete.
            if packet is not None and packet.is_corrupt and mark is not Mark.ENDS:
                self._damage = "damaged: a part of its data is missing"
        except DAMAGE_ERRORS as error:
            frames, self._damage = [], reason_of(error)
        for frame in frames:
            if self._is_before_start(frame):
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

    def _is_before_start(self, frame: av.VideoFrame) -> bool:
        """Return whether a frame is shown before the random access point at which decoding began."""
        if self._start_pts is None:
            return False
        if self._video.format_name in COUNTED_FORMATS:
            return False
        if frame.pts is None:
            return not self._is_start_shown
        self._is_start_shown |= frame.pts >= self._start_pts
        return frame.pts < self._start_pts

    def _restart(self, packet: VideoPacket | None) -> Iterator[av.VideoFrame | None]:
        """Output the frames of a recording that has ended, before the first packet of the next one."""
        if not self._damage:
            yield from self._decode(None)
        if packet is not None:
            self._resume(packet)

    def _resume(self, packet: VideoPacket) -> None:
        self._start_pts, self._is_start_shown = packet.pts, False
        self._earlier_damage, self._damage = self._damage or self._earlier_damage, ""
        self._codec.flush_buffers()

    def _may_resume(self, packet: VideoPacket, mark: Mark) -> bool:
        """Return whether this is the second random access point after damage: the first may be spliced from two others."""
        if not self._resumes or packet.is_corrupt or mark is Mark.CONTRADICTS:
            self._num_random_access = 0
        elif packet.pts is not None and self._video.is_random_access(packet):
            self._num_random_access += 1
        return self._num_random_access == RANDOM_ACCESS_POINTS_BEFORE_RESUMING

    def _all_packets(self) -> Iterator[tuple[VideoPacket | None, Mark]]:
        """Yield the packets that have data, then None, which drains the decoder."""
        try:
            yield from ((placed.packet, placed.mark) for placed in self._packets if placed.packet.size)
        except DAMAGE_ERRORS as error:
            self._damage = reason_of(error)
        yield None, Mark.CONTINUES
