"""Decodes no more than the targets need, bit for bit as if everything were decoded.

Packets are read in decoding order into a short queue. Once it is certain which of them are wanted, the decoder is given the
wanted packets and those that they are decoded from. It skips disposable packets, and everything between the last wanted frame
of a GOP and the next GOP that holds one.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import av
import numpy as np

from microaction.video.decoding.bitstream import PacketKind, Structure
from microaction.video.decoding.container import OpenVideo
from microaction.video.decoding.damage import DAMAGE_ERRORS, reason_of
from microaction.video.decoding.gop import EARLIEST_PTS, FrameResult, GopDecoder, NotExactError, RepeatedTimeError
from microaction.video.decoding.targets import AtIndices, TargetFrame, Targets
from microaction.video.decoding.timeline import VideoPacket

MAX_QUEUED_BYTES = 32 << 20  # a GOP that is longer is decoded as it is read


class _QueuedPacket(NamedTuple):
    packet: VideoPacket
    pts: int
    kind: PacketKind


class SelectivePass:
    """One pass over packets that begin at a random access point, or at the start of the stream (`is_stream_start`).

    Yields the frames of the targets from `first` to `stop` (exclusive). Raises `NotExactError` before it yields a wrong one.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: Iterator[VideoPacket],
        structure: Structure,
        targets: Targets,
        to_image: Callable[[av.VideoFrame], np.ndarray],
        *,
        first: int,
        stop: int,
        is_stream_start: bool,
    ) -> None:
        self._video, self._packets, self._structure = video, packets, structure
        self._targets, self._stop, self._next_target = targets, stop, first
        self._to_image = to_image
        self._decoder = GopDecoder(video)
        self._queue: deque[_QueuedPacket] = deque()
        self._queued_bytes = 0
        self._continues_decoder = is_stream_start  # the decoder has every packet before the queue's first one
        self._shown: list[int] = []
        self._first_pts: int | None = None
        self._next_frame_num: int | None = None  # where the stream numbers its frames
        self._start_pts = EARLIEST_PTS  # of the random access point at which decoding began
        self._end_tick = 0
        self._is_at_end = False
        self._end_reason = ""
        self._wanted: dict[int, tuple[int, int]] = {}  # PTS → first and last target
        self._pending: deque[int] = deque()  # wanted PTS, in the order of the targets, that were not fed yet

    def run(self) -> Iterator[TargetFrame]:
        """Yield a frame, or the reason why it is missing, for each of the targets."""
        missing = range(0)
        while self._next_target < self._stop or self._pending:
            if not self._resolve_targets():
                missing = range(self._next_target, self._stop)
                self._stop = self._next_target
            yield from self._feed_certain()
            if self._next_target < self._stop:
                self._read_packet()
        yield from self._target_frames(self._decoder.drain())
        for target in missing:
            yield TargetFrame(target, target, None, self._end_reason or self._missing_reason(target))

    def _missing_reason(self, target: int) -> str:
        return self._targets.missing_reason(target, len(self._shown), self._end_tick)

    @property
    def _num_final(self) -> int:
        """How many of the frames known so far have their final index: no frame that is still to come is shown before them."""
        is_complete = self._is_at_end and not self._end_reason
        return len(self._shown) if is_complete else max(len(self._shown) - self._structure.max_reorder, 0)

    def _resolve_targets(self) -> bool:
        """Find the frames of the next targets as far as they are certain.

        Returns False if the next target is missing and no packet is left to read.
        """
        while self._next_target < self._stop:
            index = self._targets.frame_index(self._next_target, self._shown)
            if not self._is_at_end or self._end_reason:
                if index + self._targets.lookahead >= self._num_final:
                    return not self._is_at_end
            elif not self._shown or (index >= len(self._shown) - 1 and self._missing_reason(self._next_target)):
                return False
            pts = self._shown[index]
            if pts in self._wanted:
                self._wanted[pts] = (self._wanted[pts][0], self._next_target)
            else:
                self._wanted[pts] = (self._next_target, self._next_target)
                self._pending.append(pts)
            self._next_target += 1
        return True

    @property
    def _min_uncertain_pts(self) -> int | None:
        """No frame before this PTS can still turn out to be wanted; None: no frame at all."""
        if self._next_target >= self._stop:
            return None
        if not self._num_final:
            return EARLIEST_PTS
        return self._shown[min(self._targets.frame_index(self._next_target, self._shown), self._num_final - 1)]

    def _read_packet(self) -> None:
        try:
            packet = next(self._packets, None)
        except DAMAGE_ERRORS as error:
            packet, self._end_reason = None, reason_of(error)
        if packet is None:
            self._is_at_end = True
            return
        if not packet.size:
            return
        if packet.pts is None:
            raise NotExactError("a packet without a presentation timestamp")
        if not packet.is_discard:
            index = bisect_left(self._shown, packet.pts)
            if index < len(self._shown) and self._shown[index] == packet.pts:
                raise RepeatedTimeError("two frames have the same presentation timestamp")
            if index < self._num_final:
                raise NotExactError("frames come in an order that the codec does not allow")
            insort(self._shown, packet.pts)
            self._end_tick = max(self._end_tick, packet.pts + self._video.duration_ticks(packet))
        queued = _QueuedPacket(packet, packet.pts, self._structure.kind_of(memoryview(packet)))
        self._check_frame_num(queued.kind)
        if self._first_pts is None:
            self._first_pts = packet.pts
        # The decoder may output no frame for such packets, so that numbers counted over packets would be wrong.
        if isinstance(self._targets, AtIndices) and (
            packet.pts < self._first_pts or (packet.pts == self._first_pts and not queued.kind.is_random_access)
        ):
            raise NotExactError("the stream begins with frames whose references are missing")
        self._queue.append(queued)
        self._queued_bytes += packet.size
        if queued.kind.is_random_access and not self._pending:
            self._drop_before_last_random_access()

    def _check_frame_num(self, kind: PacketKind) -> None:
        """Raise if a frame is missing or has another's frame_num: decoders then make up frames, depending on what is
        skipped.
        """
        if kind.frame_num is None or not self._structure.max_frame_num:
            return
        if kind.is_random_access:
            self._next_frame_num = 0
        if self._next_frame_num is not None and kind.frame_num != self._next_frame_num:
            raise NotExactError("a frame is missing, or has the frame_num of another")
        self._next_frame_num = (
            kind.frame_num if kind.is_disposable else (kind.frame_num + 1) % self._structure.max_frame_num
        )

    def _drop_before_last_random_access(self) -> None:
        min_pts = self._min_uncertain_pts
        starts = (
            i
            for i in range(len(self._queue) - 1, 0, -1)
            if self._queue[i].kind.is_random_access and min_pts is not None and self._queue[i].pts <= min_pts
        )
        self._drop(next(starts, 0))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._queued_bytes -= self._queue.popleft().packet.size
            self._continues_decoder = False

    def _feed_certain(self) -> Iterator[TargetFrame]:
        """Give the decoder the pending frames for which it is certain which packets before them are wanted too."""
        min_pts = self._min_uncertain_pts
        while self._pending:
            index = next((i for i, queued in enumerate(self._queue) if queued.pts == self._pending[0]), None)
            if index is None:  # it was fed together with one that is shown later
                self._pending.popleft()
                continue
            # A packet that is decoded before it and shown after it may be wanted too: that must be certain first.
            if min_pts is not None and max(queued.pts for queued in islice(self._queue, index + 1)) >= min_pts:
                return
            yield from self._feed_through(index, self._pending.popleft())
        while self._queued_bytes > MAX_QUEUED_BYTES and min_pts is not None and self._queue[0].pts < min_pts:
            if not self._continues_decoder:
                if not self._queue[0].kind.is_random_access:
                    raise NotExactError("no random access point to start at")
                yield from self._target_frames(self._decoder.drain())
                self._start_pts = self._queue[0].pts
            yield from self._feed_first()

    def _feed_through(self, index: int, pts: int) -> Iterator[TargetFrame]:
        """Feed the queue up to `index`, from the last random access point from which the frame at `pts` can be decoded."""
        starts = (i for i in range(index, -1, -1) if self._queue[i].kind.is_random_access and self._queue[i].pts <= pts)
        start = next(starts, None)
        if start is None and not self._continues_decoder:
            raise NotExactError("no random access point to start at")
        if start is not None and (start or not self._continues_decoder or self._decoder.is_damaged):
            yield from self._target_frames(self._decoder.drain())
            self._drop(start)
            self._start_pts = self._queue[0].pts
        for _ in range(index + 1 - (start or 0)):
            yield from self._feed_first()

    def _feed_first(self) -> Iterator[TargetFrame]:
        queued = self._queue.popleft()
        self._queued_bytes -= queued.packet.size
        self._continues_decoder = True
        if queued.pts < self._start_pts:
            if not self._structure.has_leading_pictures:
                raise NotExactError("a frame is shown before the random access point that it follows")
            return
        if queued.pts in self._wanted or not queued.kind.is_disposable:
            yield from self._target_frames(self._decoder.feed(queued.packet, is_wanted=queued.pts in self._wanted))

    def _target_frames(self, results: Iterator[FrameResult]) -> Iterator[TargetFrame]:
        for pts, frame, reason in results:
            first, last = self._wanted.pop(pts)
            yield TargetFrame(first, last, None if frame is None else self._to_image(frame), reason)
