"""Which clips an epoch visits, in which order, and which worker reads which: a function of seed and epoch alone.

A draw is a clip's index in its list, plus the list's length for every time that the clip was drawn before in the epoch: it
identifies the clip and its random numbers (`clips.ingest.read_clips`).
"""

import numpy as np


def steps_per_epoch(num_clips: int, batch_size: int) -> int:
    """Return the number of whole batches of an epoch; the clips that are left over differ from epoch to epoch."""
    return num_clips // batch_size


def epoch_order(label_N: np.ndarray, seed: int, epoch: int, class_balance: float = 0.0) -> np.ndarray:
    """Return the draws [N] of an epoch, in order.

    With `class_balance` 0 every clip is drawn once; with 1 every class that has clips is drawn equally often, give or take one,
    its clips in turn; in between a class of n clips is drawn in proportion to n to the power of 1 − class_balance.
    """
    rng = np.random.default_rng((seed, epoch))
    if class_balance == 0:
        return rng.permutation(len(label_N))
    classes, count_K = np.unique(label_N, return_counts=True)
    weight_K = count_K ** (1.0 - class_balance)
    draws = [
        _draws_of_class(np.flatnonzero(label_N == label), quota, len(label_N), rng)
        for label, quota in zip(classes, _whole_quotas(weight_K, len(label_N), rng), strict=True)
    ]
    return rng.permutation(np.concatenate(draws))


def shard_of_batches(order_N: np.ndarray, batch_size: int, rank: int, num_ranks: int) -> np.ndarray:
    """Return a worker's draws [steps, S] of all whole global batches: every `num_ranks`-th of each batch, from `rank` on.

    The same clips make up a global batch however many workers there are; S differs by one between workers if `batch_size` is
    not a multiple of `num_ranks`.
    """
    whole = len(order_N) // batch_size * batch_size
    return order_N[:whole].reshape(-1, batch_size)[:, rank::num_ranks]


def _whole_quotas(weight_K: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Return integers that add up to `total`, in proportion to the weights; the remainder of rounding is assigned at random."""
    exact_K: np.ndarray = weight_K / weight_K.sum() * total
    quota_K: np.ndarray = np.floor(exact_K).astype(np.int64)
    left = total - int(quota_K.sum())
    fraction_K = exact_K - quota_K
    if left:
        chosen = rng.choice(len(weight_K), left, replace=False, p=fraction_K / fraction_K.sum())
        quota_K[chosen] += 1
    return quota_K


def _draws_of_class(clips: np.ndarray, quota: int, num_clips: int, rng: np.random.Generator) -> np.ndarray:
    """Return `quota` draws of a class's clips: all of them in rounds, each round in its own order."""
    rounds = [rng.permutation(clips) + turn * num_clips for turn in range(-(-quota // len(clips)))]
    return np.concatenate([np.empty(0, np.int64), *rounds])[:quota]
