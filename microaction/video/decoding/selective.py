"""Decoding no more than what is asked for, bit for bit as if everything were decoded.

Packets are read in decoding order into a short queue. Once it is certain which of them are wanted, the decoder is given the
wanted ones and those that they are decoded from: packets that nothing refers to are left out, and so is all that lies
between the last wanted frame of a group of pictures and the next group that holds one.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import av
import numpy as np

from microaction.video.decoding.bitstream import PacketKind, Structure
from microaction.video.decoding.container import DAMAGE, OpenVideo, VideoPacket, reason_of
from microaction.video.decoding.group import EARLIEST, FrameResult, GroupDecoder, NotExactError
from microaction.video.decoding.targets import AtIndices, TargetFrame, Targets

MAX_QUEUED_BYTES = 32 << 20  # a group of pictures that never ends is decoded as it comes


class _Read(NamedTuple):
    packet: VideoPacket
    pts: int
    kind: PacketKind


class SelectivePass:
    """One pass over packets that begin with a clean start, or with the stream (`is_beginning`).

    Answers the targets from number `first` to `stop` (exclusive). Raises `NotExactError` before anything wrong is given.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: Iterator[VideoPacket],
        structure: Structure,
        targets: Targets,
        to_picture: Callable[[av.VideoFrame], np.ndarray],
        *,
        first: int,
        stop: int,
        is_beginning: bool,
    ) -> None:
        self._video, self._packets, self._structure = video, packets, structure
        self._targets, self._stop, self._next_target = targets, stop, first
        self._to_picture = to_picture
        self._decoder = GroupDecoder(video)
        self._queue: deque[_Read] = deque()
        self._queued_bytes = 0
        self._follows_decoder = is_beginning  # the queue's first packet is what the decoder would be given next
        self._shown: list[int] = []
        self._first_pts: int | None = None
        self._next_number: int | None = None  # of a frame, where the stream counts them
        self._start_pts = EARLIEST  # of the clean start that decoding began at
        self._end_tick = 0
        self._ended = False
        self._end_reason = ""
        self._wanted: dict[int, tuple[int, int]] = {}  # presentation time: first and last target
        self._unfed: deque[int] = deque()

    def run(self) -> Iterator[TargetFrame]:
        missing = range(0)
        while self._next_target < self._stop or self._unfed:
            if not self._locate():
                missing = range(self._next_target, self._stop)
                self._stop = self._next_target
            yield from self._feed_what_is_certain()
            if self._next_target < self._stop:
                self._read()
        yield from self._answers(self._decoder.finish())
        for target in missing:
            yield TargetFrame(target, target, None, self._end_reason or self._missing(target))

    def _missing(self, target: int) -> str:
        return self._targets.missing(target, len(self._shown), self._end_tick)

    @property
    def _num_settled(self) -> int:
        """So many of the first frames known are the first for good: no earlier one can follow."""
        is_whole = self._ended and not self._end_reason
        return len(self._shown) if is_whole else max(len(self._shown) - self._structure.max_reorder, 0)

    def _locate(self) -> bool:
        """Moves on over targets whose frame is certain; False where the next one is not there and nothing is left to read."""
        while self._next_target < self._stop:
            place = self._targets.place(self._next_target, self._shown)
            if not self._ended or self._end_reason:
                if place + self._targets.lookahead >= self._num_settled:
                    return not self._ended
            elif not self._shown or (place >= len(self._shown) - 1 and self._missing(self._next_target)):
                return False
            pts = self._shown[place]
            if pts in self._wanted:
                self._wanted[pts] = (self._wanted[pts][0], self._next_target)
            else:
                self._wanted[pts] = (self._next_target, self._next_target)
                self._unfed.append(pts)
            self._next_target += 1
        return True

    @property
    def _floor(self) -> int | None:
        """No frame shown before this time is wanted besides those that are known to be; None: none at all."""
        if self._next_target >= self._stop:
            return None
        if not self._num_settled:
            return EARLIEST
        return self._shown[min(self._targets.place(self._next_target, self._shown), self._num_settled - 1)]

    def _read(self) -> None:
        try:
            packet = next(self._packets, None)
        except DAMAGE as error:
            packet, self._end_reason = None, reason_of(error)
        if packet is None:
            self._ended = True
            return
        if not packet.size:
            return
        if packet.pts is None:
            raise NotExactError("a packet without a presentation time")
        if not packet.is_discard:
            place = bisect_left(self._shown, packet.pts)
            if place < self._num_settled or (place < len(self._shown) and self._shown[place] == packet.pts):
                raise NotExactError("frames come in an order that the codec does not have, or twice")
            insort(self._shown, packet.pts)
            self._end_tick = max(self._end_tick, packet.pts + self._video.length_of(packet))
        read = _Read(packet, packet.pts, self._structure.kind_of(memoryview(packet)))
        self._check_number(read.kind)
        if self._first_pts is None:
            self._first_pts = packet.pts
        # Such frames may not come out, so that numbers counted over packets would be wrong.
        if isinstance(self._targets, AtIndices) and (
            packet.pts < self._first_pts or (packet.pts == self._first_pts and not read.kind.is_random_access)
        ):
            raise NotExactError("the stream begins with frames that refer to what is not there")
        self._queue.append(read)
        self._queued_bytes += packet.size
        if read.kind.is_random_access and not self._unfed:
            self._drop_before_last_start()

    def _check_number(self, kind: PacketKind) -> None:
        """Where a frame is missing or has another's number, decoders make frames up; which, hangs on what is left out."""
        if kind.number is None or not self._structure.num_numbers:
            return
        if kind.is_random_access:
            self._next_number = 0
        if self._next_number is not None and kind.number != self._next_number:
            raise NotExactError("a frame is missing, or has the number of another")
        self._next_number = kind.number if kind.disposable else (kind.number + 1) % self._structure.num_numbers

    def _drop_before_last_start(self) -> None:
        floor = self._floor
        starts = (
            place
            for place in range(len(self._queue) - 1, 0, -1)
            if self._queue[place].kind.is_random_access and floor is not None and self._queue[place].pts <= floor
        )
        self._drop(next(starts, 0))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._queued_bytes -= self._queue.popleft().packet.size
            self._follows_decoder = False

    def _feed_what_is_certain(self) -> Iterator[TargetFrame]:
        floor = self._floor
        while self._unfed:
            place = next((i for i, read in enumerate(self._queue) if read.pts == self._unfed[0]), None)
            if place is None:  # it went with an earlier one that is shown later
                self._unfed.popleft()
                continue
            # What is decoded before it and shown after it may be wanted too: that must be certain first.
            if floor is not None and max(read.pts for read in islice(self._queue, place + 1)) >= floor:
                return
            yield from self._feed_through(place, self._unfed.popleft())
        while self._queued_bytes > MAX_QUEUED_BYTES and floor is not None and self._queue[0].pts < floor:
            if not self._follows_decoder:
                if not self._queue[0].kind.is_random_access:
                    raise NotExactError("no place to start at")
                yield from self._answers(self._decoder.finish())
                self._start_pts = self._queue[0].pts
            yield from self._feed_first()

    def _feed_through(self, place: int, pts: int) -> Iterator[TargetFrame]:
        starts = (i for i in range(place, -1, -1) if self._queue[i].kind.is_random_access and self._queue[i].pts <= pts)
        start = next(starts, None)
        if start is None and not self._follows_decoder:
            raise NotExactError("no place to start at")
        if start is not None and (start or not self._follows_decoder or self._decoder.is_damaged):
            yield from self._answers(self._decoder.finish())
            self._drop(start)
            self._start_pts = self._queue[0].pts
        for _ in range(place + 1 - (start or 0)):
            yield from self._feed_first()

    def _feed_first(self) -> Iterator[TargetFrame]:
        read = self._queue.popleft()
        self._queued_bytes -= read.packet.size
        self._follows_decoder = True
        if read.pts < self._start_pts:
            if not self._structure.has_leading_pictures:
                raise NotExactError("a frame is shown before the one that decoding may start at")
            return
        if read.pts in self._wanted or not read.kind.disposable:
            yield from self._answers(self._decoder.feed(read.packet, is_wanted=read.pts in self._wanted))

    def _answers(self, results: Iterator[FrameResult]) -> Iterator[TargetFrame]:
        for pts, frame, reason in results:
            first, last = self._wanted.pop(pts)
            yield TargetFrame(first, last, None if frame is None else self._to_picture(frame), reason)
