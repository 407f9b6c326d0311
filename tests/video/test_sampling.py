import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.video import segment_indices

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
