"""Decoding of one group of pictures (GOP) at a time, which establishes which of its frames are right."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import av

from microaction.video.decoding.container import OpenVideo
from microaction.video.decoding.damage import DAMAGE_ERRORS, reason_of
from microaction.video.decoding.timeline import VideoPacket

EARLIEST_PTS = -(1 << 63)


class NotExactError(Exception):
    """The stream does not have the structure that it declares: leaving packets out may change frames."""


class RepeatedTimeError(NotExactError):
    """Two frames have the same time: which one a target is, only their order tells."""


class FrameResult(NamedTuple):
    """A wanted frame, or None and the reason why it cannot be decoded."""

    pts: int
    frame: av.VideoFrame | None
    reason: str


class GopDecoder:
    """Decodes packets up to the next random access point, and yields wanted frames only once they are known to be right.

    A frame is right if all packets of its GOP up to its own, in decoding order, were decoded without an error. After
    the first packet with an error the rest of the GOP is dropped, since later frames may refer to it.
    """

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self._codec = video.stream.codec_context
        self._reset()

    def _reset(self) -> None:
        self._num_fed = 0
        self._last_pts = EARLIEST_PTS
        self._in_decoder: dict[int, int] = {}  # PTS → index in decoding order, of packets whose frame is still to come
        self._held: deque[tuple[int, int, av.VideoFrame]] = deque()  # (index in decoding order, PTS, wanted frame)
        self._wanted: list[tuple[int, int]] = []  # (PTS, index in decoding order) of wanted frames without a result
        self._first_damaged: int | None = None  # index in decoding order
        self._reason = ""

    @property
    def is_damaged(self) -> bool:
        """Whether a packet of the present GOP could not be decoded."""
        return self._first_damaged is not None

    def feed(self, packet: VideoPacket, *, is_wanted: bool) -> Iterator[FrameResult]:
        """Decode the next packet of the GOP; yield the wanted frames that are now known to be right."""
        index = self._num_fed
        self._num_fed += 1
        assert packet.pts is not None
        if is_wanted:
            self._wanted.append((packet.pts, index))
        if self.is_damaged:
            return
        if not packet.is_discard:
            self._in_decoder[packet.pts] = index
        try:
            frames = self._video.decode(packet, has_all_references=True)
        except DAMAGE_ERRORS as error:
            self._record_damage(index, reason_of(error))
            frames = []
        if packet.is_corrupt:
            self._record_damage(index, "damaged: a part of its data is missing")
        yield from self._collect(frames)

    def drain(self) -> Iterator[FrameResult]:
        """End the GOP: yield the results of the wanted frames that are left, and reset the decoder."""
        if not self._num_fed:
            return
        try:
            frames = self._video.decode(None, has_all_references=True)
        except DAMAGE_ERRORS as error:
            self._record_damage(min(self._in_decoder.values(), default=self._num_fed), reason_of(error))
            frames = []
        yield from self._collect(frames)
        if (self._in_decoder or self._wanted) and not self.is_damaged:
            raise NotExactError("a packet without a frame")
        for pts, _ in sorted(self._wanted):
            yield FrameResult(pts, None, self._reason)
        self._codec.flush_buffers()
        self._reset()

    def _collect(self, frames: list[av.VideoFrame]) -> Iterator[FrameResult]:
        for frame in frames:
            index = None if frame.pts is None else self._in_decoder.pop(frame.pts, None)
            if index is None or frame.pts is None:
                if self.is_damaged:
                    continue
                raise NotExactError("a frame without a packet of its own")
            if frame.pts < self._last_pts:
                raise NotExactError("the container's timestamps contradict the order of frames")
            self._last_pts = frame.pts
            if frame.is_corrupt:
                seconds = self._video.seconds(frame.pts)
                self._record_damage(index, f"damaged: the frame at {seconds:.3f} s cannot be decoded")
            if any(pts == frame.pts for pts, _ in self._wanted):
                self._held.append((index, frame.pts, frame))
        oldest = next(iter(self._in_decoder.values()), self._num_fed)
        limit = oldest if self._first_damaged is None else min(oldest, self._first_damaged)
        while self._held and self._held[0][0] < limit:
            index, pts, frame = self._held.popleft()
            self._wanted.remove((pts, index))
            yield FrameResult(pts, frame, "")

    def _record_damage(self, index: int, reason: str) -> None:
        if self._first_damaged is None or index < self._first_damaged:
            self._first_damaged, self._reason = index, reason
