from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.labeling.events import Event, EventRule, find_events, partition_time
from microaction.video.windows import Span, merge_spans, split_windows

S = 1_000_000
PLAIN = EventRule(start_threshold=0.5, continue_threshold=0.5, max_gap_us=0, min_event_us=0)


def probabilities(rows: list[tuple[int, float]]) -> np.ndarray:
    """A row per window: its best action and how probable that is; the rest spread over 52."""
    table = np.array([np.full(52, (1 - p) / 51) for _, p in rows])
    for i, (action, p) in enumerate(rows):
        table[i, action] = p
    return table


def found(windows: list[Span], rows: list[tuple[int, float]], rule: EventRule = PLAIN) -> list[Event]:
    starts, ends = (np.array(times) for times in zip(*windows, strict=True))
    return find_events(starts, ends, probabilities(rows), rule)


def grid(num_windows: int) -> list[Span]:
    return split_windows((num_windows + 1) * S, 2 * S, S)  # window i speaks for i + 0.5 to i + 1.5 s


def spans(events: list[Event]) -> list[tuple[int, float, float]]:
    return [(event.action_id, event.start_us / S, event.end_us / S) for event in events]


def test_neighbours_of_one_action_are_one_event() -> None:
    events = found(grid(5), [(9, 0.9), (9, 0.7), (9, 0.8), (3, 0.6), (3, 0.3)])
    assert spans(events) == [(3, 3.5, 4.5), (9, 0, 3.5)]
    assert events[1].num_windows == 3
    assert abs(events[1].probability - 0.8) < 1e-6
    assert events[1].peak_probability == 0.9


def test_a_window_that_says_nothing_parts_two_events_unless_gaps_so_long_are_bridged() -> None:
    rows = [(1, 0.9), (1, 0.2), (1, 0.9)]
    assert spans(found(grid(3), rows)) == [(1, 0, 1.5), (1, 2.5, 4)]
    bridging = EventRule(0.5, 0.5, max_gap_us=S, min_event_us=0)
    (event,) = found(grid(3), rows, bridging)
    assert (event.num_windows, event.start_us, event.end_us) == (3, 0, 4 * S)
    assert len(found(grid(3), rows, EventRule(0.5, 0.5, S - 1, 0))) == 2


def test_an_event_begins_only_with_a_sure_window_and_lasts_over_less_sure_ones() -> None:
    hysteresis = EventRule(0.6, 0.3, 0, 0)
    rows = [(1, 0.4), (1, 0.7), (1, 0.35), (1, 0.2), (1, 0.5), (1, 0.55)]
    assert spans(found(grid(6), rows, hysteresis)) == [(1, 0, 3.5)]


def test_short_events_are_left_out_after_gaps_are_bridged() -> None:
    rows = [(1, 0.2), (1, 0.9), (1, 0.2), (1, 0.9), (1, 0.2), (1, 0.2), (1, 0.9), (1, 0.1)]
    assert spans(found(grid(8), rows, EventRule(0.5, 0.5, S, 2 * S))) == [(1, 1.5, 4.5)]


def test_a_span_without_windows_parts_two_events_whatever_gaps_are_bridged() -> None:
    windows = [Span(0, 2 * S), Span(3 * S, 5 * S)]
    events = found(windows, [(1, 0.9), (1, 0.9)], EventRule(0.5, 0.5, 60 * S, 0))
    assert spans(events) == [(1, 0, 2), (1, 3, 5)]


def test_two_actions_at_once_are_two_events() -> None:
    table = np.zeros((1, 52))
    table[0, [4, 7]] = 0.45, 0.55
    events = find_events(np.array([0]), np.array([2 * S]), table, EventRule(0.4, 0.4, 0, 0))
    assert spans(events) == [(4, 0, 2), (7, 0, 2)]


@given(st.integers(1, 60 * S), st.integers(S, 4 * S), st.data())
def test_windows_speak_for_every_moment_once(duration: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(window // 4, window))
    windows = split_windows(duration, window, stride)
    starts, ends = (np.array(times) for times in zip(*windows, strict=True))
    spoken = [Span(*span) for span in zip(*(each.tolist() for each in partition_time(starts, ends)), strict=True)]
    assert merge_spans(spoken) == [Span(0, duration)]
    assert all(a.end_us == b.start_us for a, b in pairwise(spoken))
    assert all(w.start_us <= s.start_us <= s.end_us <= w.end_us for w, s in zip(windows, spoken, strict=True))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.3, 0.99)), min_size=1, max_size=40),
    st.floats(0.3, 0.9),
    st.floats(0, 1),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_events_are_what_the_rule_says_window_by_window(
    rows: list[tuple[int, float]], least: float, keep_share: float, gap: int, shortest: int
) -> None:
    """Against the rule told slowly: a state that goes on and off over windows, for each action."""
    rule = EventRule(least, least * keep_share, gap * S, shortest * S)
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
        joined: list[list[int]] = []
        for run in runs:
            if joined and run[0] - joined[-1][-1] - 1 <= gap:
                joined[-1] = list(range(joined[-1][0], run[-1] + 1))
            else:
                joined.append(run)
        for run in joined:
            start = 0.0 if run[0] == 0 else run[0] + 0.5
            end = len(rows) + 1.0 if run[-1] == len(rows) - 1 else run[-1] + 1.5
            if end - start >= shortest:
                expected.append((action, start, end))
    assert spans(found(windows, rows, rule)) == expected
