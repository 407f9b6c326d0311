"""Spans of a video: chunks are the units of work, windows are what the model classifies. Pure integers.

All times are whole microseconds from the video's beginning and all spans are half-open, so that rounding can neither lose nor
repeat a moment.
"""

from collections.abc import Iterable
from typing import NamedTuple

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
