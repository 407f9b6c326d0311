"""Spans of a video: chunks are the units of work, windows are what the model classifies. Pure integers.

All times are whole microseconds from the video's beginning and all spans are half-open, so that rounding can neither lose nor
repeat a moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MICROSECONDS = 1_000_000
STEP_US = 125_000  # of detectors, which see 8 frames a second


class Span(NamedTuple):
    """The half-open span [start_us, end_us)."""

    start_us: int
    end_us: int

    @property
    def start_s(self) -> float:
        """The start in seconds."""
        return self.start_us / MICROSECONDS

    @property
    def end_s(self) -> float:
        """The end in seconds, exclusive."""
        return self.end_us / MICROSECONDS


def microseconds(seconds: float) -> int:
    """Return the nearest whole number of microseconds."""
    return round(seconds * MICROSECONDS)


def split_windows(duration_us: int, window_us: int, stride_us: int, chunk: Span | None = None) -> list[Span]:
    """Return the windows that start in `chunk` (default: the whole video), ascending.

    Windows start at multiples of the stride. The last one is moved back to end with the video; a video shorter than a window
    is one window. So with stride ≤ window every moment is covered. A window may extend past the end of its chunk, so that
    splitting a video into chunks changes no window.
    """
    if not 0 < stride_us <= window_us:
        raise ValueError(f"stride ({stride_us} µs) must be > 0 and at most the window ({window_us} µs)")
    if duration_us <= 0:
        raise ValueError(f"duration ({duration_us} µs) must be > 0")
    last_start = max(duration_us - window_us, 0)
    chunk = chunk or Span(0, duration_us)
    first = -(-chunk.start_us // stride_us) * stride_us
    starts = list(range(first, min(chunk.end_us, last_start + 1), stride_us))
    moved_back = last_start % stride_us != 0
    if moved_back and chunk.start_us <= last_start < chunk.end_us:
        starts.append(last_start)
    return [Span(start, min(start + window_us, duration_us)) for start in starts]


@dataclass(frozen=True)
class WindowGrid:
    """How windows are laid over a video, or over the span in which a person is seen: they start at multiples of the stride.

    The last one is moved back to end with the video. Detectors' steps are windows too, of one frame each: with `has_short_end`
    the last one ends where the video does.
    """

    window_us: int
    stride_us: int
    has_short_end: bool = False

    def starts(self, duration_us: int) -> np.ndarray:
        """Return when the windows start [W]."""
        if self.has_short_end:
            return np.arange(0, duration_us, self.stride_us)
        last_us = max(duration_us - self.window_us, 0)
        starts_us: np.ndarray = np.unique(np.append(np.arange(0, last_us + 1, self.stride_us), last_us))
        return starts_us

    def counts(self, starts_us: np.ndarray, ends_us: np.ndarray, durations_us: np.ndarray) -> np.ndarray:
        """Return how many windows start in chunks [C] of videos that last so long [C]."""
        last_us = np.maximum(durations_us - (1 if self.has_short_end else self.window_us), 0)
        on_grid = np.minimum(ends_us - 1, last_us) // self.stride_us - -(-starts_us // self.stride_us) + 1
        counts: np.ndarray = np.maximum(on_grid, 0)
        if self.has_short_end:
            return counts
        counts += (last_us % self.stride_us != 0) & (starts_us <= last_us) & (last_us < ends_us)
        return counts


STEPS = WindowGrid(STEP_US, STEP_US, has_short_end=True)
"""The windows of detectors."""


def num_steps_of(duration_us: int) -> int:
    """Return the number of steps of a video; the last one may be shorter than the others."""
    return -(-duration_us // STEP_US)


def step_spans(steps: range, duration_us: int) -> list[Span]:
    """Return the spans of some steps of a video: step i lasts from i · `STEP_US` to the next, or to the end."""
    return [Span(step * STEP_US, min((step + 1) * STEP_US, duration_us)) for step in steps]


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the union of the spans as ascending spans that neither overlap nor touch."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start_us <= merged[-1].end_us:
            merged[-1] = Span(merged[-1].start_us, max(merged[-1].end_us, span.end_us))
        else:
            merged.append(span)
    return merged


def subtract_spans(span: Span, covered: list[Span]) -> list[Span]:
    """Return the parts of `span` that lie in none of `covered` (as `merge_spans` returns them), ascending."""
    rest: list[Span] = []
    start_us = span.start_us
    for cover in covered:
        if cover.end_us <= start_us or cover.start_us >= span.end_us:
            continue
        if cover.start_us > start_us:
            rest.append(Span(start_us, cover.start_us))
        start_us = cover.end_us
    if start_us < span.end_us:
        rest.append(Span(start_us, span.end_us))
    return rest
