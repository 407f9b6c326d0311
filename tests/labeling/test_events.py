from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.labeling.events import Event, EventRule, find_events, partition_time
from microaction.video.windows import Span, merge_spans, split_windows

S = 1_000_000
PLAIN = EventRule(start_threshold=0.5, continue_threshold=0.5, max_gap_us=0, min_event_us=0)


def probabilities(rows: list[tuple[int, float]]) -> np.ndarray:
    """Return a row per window: its most likely action with its probability, the rest spread over the other 51."""
    table = np.array([np.full(52, (1 - p) / 51) for _, p in rows])
    for i, (action, p) in enumerate(rows):
        table[i, action] = p
    return table


def found(windows: list[Span], rows: list[tuple[int, float]], rule: EventRule = PLAIN) -> list[Event]:
    starts, ends = (np.array(times) for times in zip(*windows, strict=True))
    return find_events(starts, ends, probabilities(rows), rule)


def grid(num_windows: int) -> list[Span]:
    return split_windows((num_windows + 1) * S, 2 * S, S)  # window i decides on i + 0.5 to i + 1.5 s


def spans(events: list[Event]) -> list[tuple[int, float, float]]:
    return [(event.action_id, event.start_us / S, event.end_us / S) for event in events]


def test_adjacent_windows_of_one_action_are_one_event() -> None:
    events = found(grid(5), [(9, 0.9), (9, 0.7), (9, 0.8), (3, 0.6), (3, 0.3)])
    assert spans(events) == [(3, 3.5, 4.5), (9, 0, 3.5)]
    assert events[1].num_windows == 3
    assert abs(events[1].probability - 0.8) < 1e-6
    assert events[1].peak_probability == 0.9


def test_gaps_up_to_the_limit_are_bridged() -> None:
    rows = [(1, 0.9), (1, 0.2), (1, 0.9)]
    assert spans(found(grid(3), rows)) == [(1, 0, 1.5), (1, 2.5, 4)]
    bridging = EventRule(0.5, 0.5, max_gap_us=S, min_event_us=0)
    (event,) = found(grid(3), rows, bridging)
    assert (event.num_windows, event.start_us, event.end_us) == (3, 0, 4 * S)
    assert len(found(grid(3), rows, EventRule(0.5, 0.5, S - 1, 0))) == 2


def test_starting_takes_a_higher_probability_than_continuing() -> None:
    hysteresis = EventRule(0.6, 0.3, 0, 0)
    rows = [(1, 0.4), (1, 0.7), (1, 0.35), (1, 0.2), (1, 0.5), (1, 0.55)]
    assert spans(found(grid(6), rows, hysteresis)) == [(1, 0, 3.5)]


def test_short_events_are_dropped_after_gaps_are_bridged() -> None:
    rows = [(1, 0.2), (1, 0.9), (1, 0.2), (1, 0.9), (1, 0.2), (1, 0.2), (1, 0.9), (1, 0.1)]
    assert spans(found(grid(8), rows, EventRule(0.5, 0.5, S, 2 * S))) == [(1, 1.5, 4.5)]


def test_a_span_without_windows_is_never_bridged() -> None:
    windows = [Span(0, 2 * S), Span(3 * S, 5 * S)]
    events = found(windows, [(1, 0.9), (1, 0.9)], EventRule(0.5, 0.5, 60 * S, 0))
    assert spans(events) == [(1, 0, 2), (1, 3, 5)]


def test_two_simultaneous_actions_are_two_events() -> None:
    table = np.zeros((1, 52))
    table[0, [4, 7]] = 0.45, 0.55
    events = find_events(np.array([0]), np.array([2 * S]), table, EventRule(0.4, 0.4, 0, 0))
    assert spans(events) == [(4, 0, 2), (7, 0, 2)]


@given(st.integers(1, 60 * S), st.integers(S, 4 * S), st.data())
def test_windows_decide_on_every_moment_once(duration: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(window // 4, window))
    windows = split_windows(duration, window, stride)
    starts, ends = (np.array(times) for times in zip(*windows, strict=True))
    decided = [Span(*span) for span in zip(*(each.tolist() for each in partition_time(starts, ends)), strict=True)]
    assert merge_spans(decided) == [Span(0, duration)]
    assert all(a.end_us == b.start_us for a, b in pairwise(decided))
    assert all(w.start_us <= s.start_us <= s.end_us <= w.end_us for w, s in zip(windows, decided, strict=True))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.3, 0.99)), min_size=1, max_size=40),
    st.floats(0.3, 0.9),
    st.floats(0, 1),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_events_equal_those_of_a_slow_reference(
    rows: list[tuple[int, float]], start_threshold: float, continue_factor: float, gap: int, min_length: int
) -> None:
    """The reference switches a state on and off from window to window, for each action."""
    rule = EventRule(start_threshold, start_threshold * continue_factor, gap * S, min_length * S)
    windows = grid(len(rows))
    table = probabilities(rows)
    expected = []
    for action in range(52):
        runs: list[list[int]] = []
        for window in range(len(windows)):
            if table[window, action] >= rule.continue_threshold:
                if runs and runs[-1][-1] == window - 1:
                    runs[-1].append(window)
                else:
                    runs.append([window])
        runs = [run for run in runs if max(table[window, action] for window in run) >= rule.start_threshold]
        merged: list[list[int]] = []
        for run in runs:
            if merged and run[0] - merged[-1][-1] - 1 <= gap:
                merged[-1] = list(range(merged[-1][0], run[-1] + 1))
            else:
                merged.append(run)
        for run in merged:
            start = 0.0 if run[0] == 0 else run[0] + 0.5
            end = len(rows) + 1.0 if run[-1] == len(rows) - 1 else run[-1] + 1.5
            if end - start >= min_length:
                expected.append((action, start, end))
    assert spans(found(windows, rows, rule)) == expected
