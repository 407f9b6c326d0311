import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.training.loop import epoch_order, seed_of, share_of_batches, steps_per_epoch


@given(st.integers(1, 500), st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 10))
def test_any_number_of_processes_makes_the_same_global_batches(clips: int, ranks: int, each: int) -> None:
    batch_size = ranks * each
    order = epoch_order(clips, seed=1, epoch=2)
    shares = [share_of_batches(order, batch_size, rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {steps_per_epoch(clips, batch_size) * each}
    for step in range(steps_per_epoch(clips, batch_size)):
        together = {int(i) for share in shares for i in share[step * each : (step + 1) * each]}
        assert together == set(order[step * batch_size : (step + 1) * batch_size].tolist())


def test_an_epoch_visits_every_clip_in_an_order_of_its_own() -> None:
    first, again, next_epoch, other_seed = (epoch_order(50, s, e).tolist() for s, e in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert sorted(first) == list(range(50))
    assert first == again
    assert first not in (next_epoch, other_seed)


def test_a_batch_that_cannot_be_shared_names_one_that_can() -> None:
    with pytest.raises(ValueError, match=r"recipe.batch_size \(10\) must be a multiple of num_workers \(3\).*try 9"):
        share_of_batches(np.arange(100), 10, 0, 3)


def test_seeds_differ_by_every_number_and_fit_torch() -> None:
    seeds = {seed_of(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
