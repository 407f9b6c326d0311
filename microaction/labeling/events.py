"""Events: windows of one video merged over time."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from microaction.video.windows import Span


@dataclass(frozen=True)
class Event:
    """One action over [start_us, end_us); `probability` is the mean over its windows."""

    action_id: int
    start_us: int
    end_us: int
    probability: float
    num_windows: int


def merge_windows(windows: list[Span], probabilities_WK: np.ndarray, min_probability: float) -> list[Event]:
    """Neighbouring windows with the same most probable action become one event; events never overlap.

    Each window speaks for the time that is nearer to its middle than to its neighbours' middles; the first and the last
    also for the beginning and the end. A window whose best probability is below `min_probability` says nothing and ends
    an event, as does a span without windows. `windows` ascend.
    """
    actions_W = probabilities_WK.argmax(axis=1)
    best_W = probabilities_WK.max(axis=1)
    events: list[Event] = []
    members: list[int] = []
    spans = spoken_for(windows)

    def close() -> None:
        if members:
            first, last = members[0], members[-1]
            mean = float(best_W[members].mean())
            events.append(Event(int(actions_W[first]), spans[first].start_us, spans[last].end_us, mean, len(members)))
        members.clear()

    for window, (action, probability) in enumerate(zip(actions_W, best_W, strict=True)):
        if members:
            joins = actions_W[members[-1]] == action and spans[members[-1]].end_us == spans[window].start_us
            if not joins or probability < min_probability:
                close()
        if probability >= min_probability:
            members.append(window)
    close()
    return events


def spoken_for(windows: list[Span]) -> list[Span]:
    """The part of time that each window speaks for: disjoint, ascending, and together all that the windows cover."""
    starts, ends = [window.start_us for window in windows], [window.end_us for window in windows]
    for i, (earlier, later) in enumerate(pairwise(windows)):
        if later.start_us <= earlier.end_us:
            border_us = (earlier.start_us + earlier.end_us + later.start_us + later.end_us) // 4
            ends[i] = starts[i + 1] = border_us
    return [Span(start, end) for start, end in zip(starts, ends, strict=True)]
