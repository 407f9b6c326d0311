"""Which frames are asked for: by their number, or by the time at which they are on the screen.

`shown` is always the ascending presentation times of the frames known so far, in ticks of the stream's clock.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np


class TargetFrame(NamedTuple):
    """One frame for the targets number `first` to `last` (inclusive): RGB [H, W, 3], or None and the reason why not."""

    first: int
    last: int
    image: np.ndarray | None
    reason: str = ""


class Targets(Protocol):
    """Ascending targets; `lookahead` more frames must be known before the place of one is certain."""

    lookahead: int

    def __len__(self) -> int: ...

    def place(self, target: int, shown: Sequence[int]) -> int:
        """Where in `shown` the target's frame is, or would be."""

    def missing(self, target: int, num_shown: int, end_tick: int) -> str:
        """Why a video of so many frames, the last of which ends at `end_tick`, lacks the target; empty if it does not."""


@dataclass(frozen=True)
class AtIndices:
    """Frames by number, in presentation order from 0; distinct."""

    indices: Sequence[int]
    lookahead = 0

    def __len__(self) -> int:
        return len(self.indices)

    def place(self, target: int, shown: Sequence[int]) -> int:
        return self.indices[target]

    def missing(self, target: int, num_shown: int, end_tick: int) -> str:
        index = self.indices[target]
        return "" if index < num_shown else f"frame {index} was asked for and only {num_shown} could be decoded"


@dataclass(frozen=True)
class AtTimes:
    """The frames on the screen at these times: the last with a presentation time ≤ t, or the first frame of all.

    `origin` is the tick that counts as 0 s.
    """

    times_s: Sequence[Fraction]
    origin: int
    tick_s: Fraction
    lookahead = 1

    def __len__(self) -> int:
        return len(self.times_s)

    def tick(self, target: int) -> int:
        """The last tick at or before the target's time."""
        return self.times_s[target] // self.tick_s + self.origin

    def place(self, target: int, shown: Sequence[int]) -> int:
        return max(bisect_right(shown, self.tick(target)) - 1, 0)

    def missing(self, target: int, num_shown: int, end_tick: int) -> str:
        end_s = (end_tick - self.origin) * self.tick_s
        if self.times_s[target] < end_s:
            return ""
        return (
            f"cut short or damaged: asked for {float(self.times_s[target]):.3f} s, and the last frame that could be "
            f"read ends at {float(end_s):.3f} s"
        )
