"""Events: the windows of one video merged over time, for each action separately.

Shapes: W windows in order of time, K actions.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EventRule:
    """When an action starts, continues and ends.

    An event starts in a window of at least `start_threshold` and extends, in both directions, over windows of at least
    `continue_threshold`. Two events of an action at most `max_gap_us` apart are merged, if windows cover all between them;
    events that are then shorter than `min_event_us` are dropped.
    """

    start_threshold: float
    continue_threshold: float
    max_gap_us: int
    min_event_us: int


@dataclass(frozen=True)
class Event:
    """One action over [start_us, end_us); `probability` is the mean over its windows, `peak_probability` the maximum."""

    action_id: int
    start_us: int
    end_us: int
    probability: float
    peak_probability: float
    num_windows: int


def find_events(
    starts_us_W: np.ndarray, ends_us_W: np.ndarray, probabilities_WK: np.ndarray, rule: EventRule
) -> list[Event]:
    """Return the events of one video, by action and time. Windows ascend.

    Each window decides on the time that is nearer to its center than to its neighbors' centers (`partition_time`). Events of
    different actions may overlap; where no window covers the video, every event ends.
    """
    starts_us_W, ends_us_W = partition_time(starts_us_W, ends_us_W)
    is_cut_W = np.append(True, starts_us_W[1:] != ends_us_W[:-1])
    events = []
    for action in np.flatnonzero((probabilities_WK >= rule.start_threshold).any(axis=0)):
        probability_W = probabilities_WK[:, action]
        for first, last in _merged(_runs(probability_W, is_cut_W, rule), starts_us_W, ends_us_W, is_cut_W, rule):
            if ends_us_W[last] - starts_us_W[first] >= rule.min_event_us:
                inside = probability_W[first : last + 1]
                events.append(
                    Event(
                        int(action),
                        int(starts_us_W[first]),
                        int(ends_us_W[last]),
                        float(inside.mean(dtype=np.float64)),
                        float(inside.max()),
                        len(inside),
                    )
                )
    return events


def partition_time(starts_us_W: np.ndarray, ends_us_W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of time that each window decides on: disjoint, ascending, and together all that the windows cover.

    The first and the last window of a covered stretch also decide on its beginning and its end.
    """
    starts, ends = starts_us_W.copy(), ends_us_W.copy()
    touching = starts_us_W[1:] <= ends_us_W[:-1]
    # Windows that only touch meet where the camera cuts: neither decides beyond it, whatever their lengths.
    middles = (starts_us_W[:-1] + ends_us_W[:-1] + starts_us_W[1:] + ends_us_W[1:]) // 4
    borders = np.clip(middles, starts_us_W[1:], np.maximum(ends_us_W[:-1], starts_us_W[1:]))
    ends[:-1][touching] = borders[touching]
    starts[1:][touching] = borders[touching]
    return starts, ends


def _runs(probability_W: np.ndarray, is_cut_W: np.ndarray, rule: EventRule) -> list[tuple[int, int]]:
    """Return (first, last) of each run of adjacent windows that continue an event and one of which starts it."""
    is_on = probability_W >= rule.continue_threshold
    begins = np.flatnonzero(is_on & (is_cut_W | ~np.append(False, is_on[:-1])))
    ends = np.flatnonzero(is_on & np.append(is_cut_W[1:] | ~is_on[1:], True))
    return [
        (int(first), int(last))
        for first, last in zip(begins, ends, strict=True)
        if probability_W[first : last + 1].max() >= rule.start_threshold
    ]


def _merged(
    runs: list[tuple[int, int]], starts_us_W: np.ndarray, ends_us_W: np.ndarray, is_cut_W: np.ndarray, rule: EventRule
) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in runs:
        if merged:
            merged_first, merged_last = merged[-1]
            gap_us = starts_us_W[first] - ends_us_W[merged_last]
            if gap_us <= rule.max_gap_us and not is_cut_W[merged_last + 1 : first + 1].any():
                merged[-1] = merged_first, last
                continue
        merged.append((first, last))
    return merged
