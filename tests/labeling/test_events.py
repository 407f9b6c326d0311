from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.labeling.events import Event, merge_windows, spoken_for
from microaction.video.windows import Span, merge_spans, split_windows

S = 1_000_000


def probabilities(rows: list[tuple[int, float]]) -> np.ndarray:
    """A row per window: its best action and how probable that is; the rest spread over 52."""
    table = np.array([np.full(52, (1 - p) / 51) for _, p in rows])
    for i, (action, p) in enumerate(rows):
        table[i, action] = p
    return table


def test_neighbours_of_one_action_are_one_event() -> None:
    windows = split_windows(6 * S, 2 * S, S)  # starts 0, 1, 2, 3, 4 s
    found = merge_windows(windows, probabilities([(9, 0.9), (9, 0.7), (9, 0.8), (3, 0.6), (3, 0.3)]), 0.5)
    assert [(e.action_id, e.start_us, e.end_us, e.num_windows) for e in found] == [
        (9, 0, 3_500_000, 3),
        (3, 3_500_000, 4_500_000, 1),
    ]
    assert abs(found[0].probability - 0.8) < 1e-6


def test_a_window_that_says_nothing_parts_two_events() -> None:
    windows = split_windows(4 * S, 2 * S, S)
    found = merge_windows(windows, probabilities([(1, 0.9), (1, 0.2), (1, 0.9)]), 0.5)
    assert [(e.start_us, e.end_us) for e in found] == [(0, 1_500_000), (2_500_000, 4 * S)]


def test_a_span_without_windows_parts_two_events() -> None:
    windows = [Span(0, 2 * S), Span(10 * S, 12 * S)]
    found = merge_windows(windows, probabilities([(1, 0.9), (1, 0.9)]), 0.5)
    assert [(e.start_us, e.end_us) for e in found] == [(0, 2 * S), (10 * S, 12 * S)]


@given(st.integers(1, 60 * S), st.integers(S, 4 * S), st.data())
def test_windows_speak_for_every_moment_once(duration: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(window // 4, window))
    windows = split_windows(duration, window, stride)
    spans = spoken_for(windows)
    assert merge_spans(spans) == [Span(0, duration)]
    assert all(a.end_us == b.start_us for a, b in pairwise(spans))
    assert all(w.start_us <= s.start_us <= s.end_us <= w.end_us for w, s in zip(windows, spans, strict=True))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.3, 0.99)), min_size=1, max_size=40), st.floats(0.3, 0.9))
def test_every_confident_window_is_in_one_event(rows: list[tuple[int, float]], least: float) -> None:
    windows = split_windows((len(rows) + 1) * S, 2 * S, S)
    events = merge_windows(windows, probabilities(rows), least)
    assert sum(event.num_windows for event in events) == sum(p >= least for _, p in rows)
    assert all(a.end_us <= b.start_us for a, b in pairwise(events))
    # Two events that touch would be one if they were of the same action.
    assert all(a.action_id != b.action_id for a, b in pairwise(events) if a.end_us == b.start_us)
    assert all(isinstance(event, Event) and event.start_us < event.end_us for event in events)
