"""Decoding a group of pictures, and knowing which of its frames are right."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import av

from microaction.video.decoding.container import DAMAGE, OpenVideo, VideoPacket, reason_of

EARLIEST = -(1 << 63)


class NotExactError(Exception):
    """The stream is not built as it says: everything must be decoded."""


class FrameResult(NamedTuple):
    """What became of a wanted frame: itself, or the reason why not."""

    pts: int
    frame: av.VideoFrame | None
    reason: str


class GroupDecoder:
    """Decodes packets up to the next clean start, and gives wanted frames only once they are known to be right.

    A frame is right when all packets of its group up to its own, in decoding order, came out whole. With the first that does
    not, the rest of the group is given up: a later frame may refer to it.
    """

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self._codec = video.stream.codec_context
        self._reset()

    def _reset(self) -> None:
        self._num_fed = 0
        self._last_pts = EARLIEST
        self._inside: dict[int, int] = {}  # presentation time: place in decoding order, of packets in the decoder
        self._held: deque[tuple[int, int, av.VideoFrame]] = deque()
        self._wanted: list[tuple[int, int]] = []  # (presentation time, place) without an outcome
        self._damaged_from: int | None = None
        self._reason = ""

    @property
    def is_damaged(self) -> bool:
        return self._damaged_from is not None

    def feed(self, packet: VideoPacket, *, is_wanted: bool) -> Iterator[FrameResult]:
        place = self._num_fed
        self._num_fed += 1
        assert packet.pts is not None
        if is_wanted:
            self._wanted.append((packet.pts, place))
        if self.is_damaged:
            return
        if not packet.is_discard:
            self._inside[packet.pts] = place
        try:
            frames = self._video.decode(packet, has_all_references=True)
        except DAMAGE as error:
            self._damage(place, reason_of(error))
            frames = []
        if packet.is_corrupt:
            self._damage(place, "damaged: a part of its data is missing")
        yield from self._take(frames)

    def finish(self) -> Iterator[FrameResult]:
        """What the decoder still holds; afterwards it knows nothing of what came before."""
        if not self._num_fed:
            return
        try:
            frames = self._video.decode(None, has_all_references=True)
        except DAMAGE as error:
            self._damage(min(self._inside.values(), default=self._num_fed), reason_of(error))
            frames = []
        yield from self._take(frames)
        if self._inside and not self.is_damaged:
            raise NotExactError("a packet without a frame")
        for pts, _ in sorted(self._wanted):
            yield FrameResult(pts, None, self._reason)
        self._codec.flush_buffers()
        self._reset()

    def _take(self, frames: list[av.VideoFrame]) -> Iterator[FrameResult]:
        for frame in frames:
            place = None if frame.pts is None else self._inside.pop(frame.pts, None)
            if place is None or frame.pts is None:
                if self.is_damaged:
                    continue
                raise NotExactError("a frame without a packet of its own")
            if frame.pts < self._last_pts:
                raise NotExactError("the container's times contradict the order of frames")
            self._last_pts = frame.pts
            if frame.is_corrupt:
                self._damage(place, f"damaged: the frame at {self._video.seconds(frame.pts):.3f} s cannot be decoded")
            if any(pts == frame.pts for pts, _ in self._wanted):
                self._held.append((place, frame.pts, frame))
        oldest_inside = next(iter(self._inside.values()), self._num_fed)
        limit = oldest_inside if self._damaged_from is None else min(oldest_inside, self._damaged_from)
        while self._held and self._held[0][0] < limit:
            place, pts, frame = self._held.popleft()
            self._wanted.remove((pts, place))
            yield FrameResult(pts, frame, "")

    def _damage(self, place: int, reason: str) -> None:
        if self._damaged_from is None or place < self._damaged_from:
            self._damaged_from, self._reason = place, reason
