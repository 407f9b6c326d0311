from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.preprocessing import SamplingRule
from microaction.video import FrameSampling, segment_indices
from microaction.video.windows import Span

COUNTS = st.integers(1, 2000)
SEGMENTS = st.integers(1, 32)


def test_indices_match_the_references_examples() -> None:
    assert segment_indices(47).tolist() == [2, 8, 14, 20, 26, 32, 38, 44]
    assert segment_indices(5).tolist() == [0, 0, 1, 2, 2, 3, 4, 4]


@given(COUNTS, SEGMENTS)
def test_without_a_generator_indices_follow_the_rule(n: int, T: int) -> None:
    indices = segment_indices(n, T)
    # The rule is int(i·n/T + n/(2T)), in exact arithmetic: floats may fall just short of an integer.
    assert indices.tolist() == [(2 * i * n + n) // (2 * T) for i in range(T)]
    assert 0 <= indices.min() <= indices.max() < n


@given(COUNTS, SEGMENTS, st.integers(0, 2**32))
def test_one_frame_is_drawn_from_each_segment(n: int, T: int, seed: int) -> None:
    indices = segment_indices(n, T, np.random.default_rng(seed))
    a = n // T
    if a > 0:
        assert all(i * a <= index < (i + 1) * a for i, index in enumerate(indices))
    else:
        assert indices.tolist() == [round(i * n / T) % n for i in range(T)]


def test_draws_depend_on_the_seed_alone() -> None:
    first, again, other = (segment_indices(300, 8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_every_frame_of_a_segment_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([segment_indices(33, 8, rng) for _ in range(500)])
    assert set(drawn[:, 0]) == {0, 1, 2, 3}
    assert drawn.max() == 31, "the tail past T·(n // T) is never sampled"


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_frames \(0\)"):
        segment_indices(0)


def consecutive(num_frames: int, interval: int, views: int = 1) -> FrameSampling:
    return FrameSampling(num_frames, "consecutive", interval, views)


def test_consecutive_frames_wrap_as_in_the_reference() -> None:
    assert consecutive(32, 2).indices(59).tolist() == [*range(0, 59, 2), 1, 3]
    assert consecutive(32, 2).indices(59, np.random.default_rng(0)).tolist() == [*range(0, 59, 2), 1, 3]


@given(COUNTS, SEGMENTS, st.integers(1, 4))
def test_one_view_of_consecutive_frames_lies_in_the_middle(n: int, T: int, interval: int) -> None:
    offset = max(n - ((T - 1) * interval + 1), 0) // 2
    assert consecutive(T, interval).indices(n).tolist() == [(offset + i * interval) % n for i in range(T)]


def test_views_of_consecutive_frames_are_spread_evenly() -> None:
    indices = consecutive(16, 1, 4).indices(60).reshape(4, 16)
    assert indices[:, 0].tolist() == [0, 15, 29, 44], "0, 14.67, 29.33 and 44, rounded"
    assert (np.diff(indices, axis=1) == 1).all()
    assert consecutive(32, 2, 3).indices(59).reshape(3, 32)[:, 0].tolist() == [0, 0, 0], "no clip is long enough"


@given(COUNTS, SEGMENTS, st.integers(1, 4), st.integers(0, 2**32))
def test_drawn_consecutive_frames_lie_in_the_clip_where_they_fit(n: int, T: int, interval: int, seed: int) -> None:
    indices = consecutive(T, interval).indices(n, np.random.default_rng(seed))
    last = max(n - T * interval, 0)
    assert 0 <= indices[0] <= last
    assert indices.tolist() == [(indices[0] + i * interval) % n for i in range(T)]


def test_every_offset_of_consecutive_frames_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {consecutive(8, 1).indices(11, rng)[0] for _ in range(200)} == {0, 1, 2, 3}


@given(COUNTS, SEGMENTS, st.integers(0, 2**32))
def test_uniform_frames_are_drawn_from_the_whole_clip(n: int, T: int, seed: int) -> None:
    indices = FrameSampling(T, "uniform").indices(n, np.random.default_rng(seed))
    assert all(int(i * n / T) <= index <= (i + 1) * n / T for i, index in enumerate(indices))
    assert indices.max() < n


def test_uniform_sampling_reaches_the_tail_that_segments_leave_out() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([FrameSampling(8, "uniform").indices(33, rng) for _ in range(500)])
    assert (drawn.min(), drawn.max()) == (0, 32)


@pytest.mark.parametrize("rule", ["segments", "uniform"])
def test_views_of_segments_have_other_places(rule: SamplingRule) -> None:
    assert FrameSampling(8, rule).indices(47).tolist() == segment_indices(47).tolist()
    views = FrameSampling(4, rule, views=2).indices(80).reshape(2, 4)
    assert views.tolist() == [[5, 25, 45, 65], [15, 35, 55, 75]]


@given(st.integers(1, 400), SEGMENTS, st.integers(1, 3))
def test_a_window_has_the_frames_of_a_clip(n: int, T: int, views: int) -> None:
    """At 30 frames/s the frames on the screen at a window's times are those of the rule for clips."""
    window = Span(2_000_000, 2_000_000 + n * 1_000_000 // 30)
    for rule in ("segments", "uniform", "consecutive"):
        sampling = FrameSampling(T, rule, 2, views)
        times_s = sampling.window_times(window)
        assert len(times_s) == sampling.num_sampled == T * views
        length_s = Fraction(window.end_us - window.start_us, 1_000_000)
        found = [int((time_s - 2) * n / length_s) for time_s in times_s]
        assert found == sampling.indices(n).tolist()


@pytest.mark.parametrize("rule", ["segments", "uniform", "consecutive"])
def test_an_empty_clip_is_refused_by_every_rule(rule: SamplingRule) -> None:
    with pytest.raises(ValueError, match=r"num_frames \(0\)"):
        FrameSampling(8, rule).indices(0)
