from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.video.windows import Span, merge_spans, split_windows, subtract_spans
from tests.video.grids import split_chunks

S = 1_000_000
DURATIONS = st.integers(1, 400 * S)


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int]:
    window = draw(st.integers(S // 2, 8 * S))
    return window, draw(st.integers(S // 4, window))


def test_windows_start_at_multiples_of_the_stride() -> None:
    assert split_windows(4 * S, 2 * S, S) == [Span(0, 2 * S), Span(S, 3 * S), Span(2 * S, 4 * S)]


def test_the_last_window_ends_with_the_video() -> None:
    assert split_windows(3_400_000, 2 * S, S) == [Span(0, 2 * S), Span(S, 3 * S), Span(1_400_000, 3_400_000)]


def test_a_video_shorter_than_a_window_is_one_window() -> None:
    assert split_windows(700_000, 2 * S, S) == [Span(0, 700_000)]


@given(DURATIONS, grids())
def test_windows_are_ordered_and_cover_the_video(duration: int, grid: tuple[int, int]) -> None:
    window, stride = grid
    windows = split_windows(duration, window, stride)
    assert merge_spans(windows) == [Span(0, duration)]
    assert all(a.start_us < b.start_us for a, b in pairwise(windows))
    assert all(w.end_us - w.start_us == min(window, duration) for w in windows)
    assert all(w.start_us % stride == 0 for w in windows[:-1])


@given(DURATIONS, grids(), st.integers(S, 200 * S))
def test_splitting_into_chunks_changes_no_window(duration: int, grid: tuple[int, int], chunk: int) -> None:
    chunks = split_chunks(duration, chunk)
    assert merge_spans(chunks) == [Span(0, duration)]
    assert sum(c.end_us - c.start_us for c in chunks) == duration
    by_chunk = [window for c in chunks for window in split_windows(duration, *grid, c)]
    assert by_chunk == split_windows(duration, *grid)


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="at most the window"):
        split_windows(S, S, 2 * S)


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda t: Span(t[0], t[0] + t[1])))


@given(SPANS, st.integers(0, 40), st.integers(1, 40))
def test_subtracting_spans_matches_subtracting_sets(spans: list[Span], start: int, length: int) -> None:
    span = Span(start, start + length)
    covered = {moment for s in spans for moment in range(*s)}
    rest = subtract_spans(span, merge_spans(spans))
    assert {moment for s in rest for moment in range(*s)} == set(range(*span)) - covered
    assert all(a.end_us < b.start_us for a, b in pairwise(rest))
