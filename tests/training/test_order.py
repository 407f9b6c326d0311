import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.training.order import epoch_order, shard_of_batches, steps_per_epoch


@given(st.integers(1, 500), st.integers(1, 6), st.integers(1, 30))
def test_any_number_of_workers_makes_the_same_global_batches(clips: int, ranks: int, batch_size: int) -> None:
    order = epoch_order(np.zeros(clips, int), seed=1, epoch=2)
    shards = [shard_of_batches(order, batch_size, rank, ranks) for rank in range(ranks)]
    assert {len(shard) for shard in shards} == {steps_per_epoch(clips, batch_size)}
    for step in range(steps_per_epoch(clips, batch_size)):
        together = [int(i) for shard in shards for i in shard[step]]
        assert sorted(together) == sorted(order[step * batch_size : (step + 1) * batch_size].tolist())


def test_an_epoch_visits_every_clip_in_its_own_order() -> None:
    first, again, next_epoch, other_seed = (
        epoch_order(np.zeros(50, int), s, e).tolist() for s, e in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert sorted(first) == list(range(50))
    assert first == again
    assert first not in (next_epoch, other_seed)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from([0.3, 0.5, 1.0]))
def test_balanced_epochs_draw_classes_by_their_fractions(counts: list[int], balance: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    draws = epoch_order(labels, 3, 4, balance)
    assert len(draws) == len(set(draws.tolist())) == len(labels), (
        "as long as an epoch, each draw with its own randomness"
    )
    drawn = np.bincount(labels[draws % len(labels)], minlength=len(counts))
    weight = np.array(counts) ** (1 - balance)
    assert np.abs(drawn - weight / weight.sum() * len(labels)).max() < 1
    for label, count in enumerate(counts):
        clips = (draws % len(labels))[labels[draws % len(labels)] == label]
        each = np.bincount(clips, minlength=len(labels))[labels == label]
        assert each.max() - each.min() <= 1, "clips of a class take turns"
        assert set(clips.tolist()) <= set(np.flatnonzero(labels == label).tolist())
        assert count == (labels == label).sum()
