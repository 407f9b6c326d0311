"""Which frames to decode: by number, or by the time at which they are on the screen.

`shown` always means the ascending presentation timestamps of the frames known so far, in ticks of the stream's clock.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np


class TargetFrame(NamedTuple):
    """One frame for the targets `first` to `last` (inclusive): RGB [H, W, 3], or None and the reason why it is missing."""

    first: int
    last: int
    image: np.ndarray | None
    reason: str = ""


class Targets(Protocol):
    """Ascending targets. The index of a target's frame is certain once `lookahead` later frames are known."""

    lookahead: int

    def __len__(self) -> int: ...

    def frame_index(self, target: int, shown: Sequence[int]) -> int:
        """Return the index in `shown` at which the target's frame is, or would be."""

    def missing_reason(self, target: int, num_shown: int, end_tick: int) -> str:
        """Return why a video of `num_shown` frames that ends at `end_tick` lacks the target; empty if it does not."""


@dataclass(frozen=True)
class AtIndices:
    """Frames by number, in presentation order from 0; distinct."""

    indices: Sequence[int]
    lookahead = 0

    def __len__(self) -> int:
        return len(self.indices)

    def frame_index(self, target: int, shown: Sequence[int]) -> int:  # noqa: ARG002 - the protocol's argument
        """Return the frame's number."""
        return self.indices[target]

    def missing_reason(self, target: int, num_shown: int, end_tick: int) -> str:  # noqa: ARG002 - the protocol's argument
        """Return why the video lacks the target; empty if it does not."""
        index = self.indices[target]
        return "" if index < num_shown else f"frame {index} was requested, but only {num_shown} could be decoded"


@dataclass(frozen=True)
class AtTimes:
    """The frames on the screen at these times: the last one with a presentation timestamp ≤ t, or the first frame of all.

    `origin_tick` is the tick that counts as 0 s.
    """

    times_s: Sequence[Fraction]
    origin_tick: int
    tick_s: Fraction
    lookahead = 1

    def __len__(self) -> int:
        return len(self.times_s)

    def tick(self, target: int) -> int:
        """Return the last tick at or before the target's time."""
        return self.times_s[target] // self.tick_s + self.origin_tick

    def frame_index(self, target: int, shown: Sequence[int]) -> int:
        """Return the index in `shown` of the last frame at or before the target's time."""
        return max(bisect_right(shown, self.tick(target)) - 1, 0)

    def missing_reason(self, target: int, num_shown: int, end_tick: int) -> str:  # noqa: ARG002 - the protocol's argument
        """Return why the video lacks the target; empty if it does not."""
        end_s = (end_tick - self.origin_tick) * self.tick_s
        if self.times_s[target] < end_s:
            return ""
        return (
            f"cut short or damaged: the frame at {float(self.times_s[target]):.3f} s was requested, and the last frame that "
            f"could be read ends at {float(end_s):.3f} s"
        )
