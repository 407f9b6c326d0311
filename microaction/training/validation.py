"""Scores of the validation clips: each is scored by exactly one worker, and none is repeated to equalize shards.

Shapes: N clips, K actions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip
from microaction.clips.sample import Sampling
from microaction.training.learner import Learner
from microaction.video import DecodeError

BATCH_SIZE = 32


def validate(
    learner: Learner,
    clips: Sequence[Clip],
    unreadable: dict[str, str],
    on_unreadable: Callable[[DecodeError], None],
) -> tuple[np.ndarray, list[Clip]]:
    """Return logits [N, K] of the clips that can be read, and those clips; the same in every worker.

    All workers call this together. `on_unreadable` adds a clip that cannot be read to `unreadable` (URI → reason), which
    finally holds those of all workers.
    """
    rank = 0
    if learner.num_ranks > 1:
        rank = dist.get_rank()
        for statistics in learner.eval_model.buffers():  # of batch norms, which may differ between workers until here
            dist.broadcast(statistics, 0)
    shard = np.arange(rank, len(clips), learner.num_ranks)
    sampling = Sampling(learner.settings.model.num_frames, learner.settings.preprocessing)
    own: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in read_clips(clips, shard, sampling, BATCH_SIZE, on_unreadable=on_unreadable):
        if len(batch.index_B):
            logits_BK = learner.classify(torch.from_numpy(batch.frames_BTHWC).to(learner.device))
            own.append((logits_BK.cpu().numpy(), batch.index_B))
    shards: list[Any] = [(own, unreadable)]
    if learner.num_ranks > 1:
        shards = [None] * learner.num_ranks
        dist.all_gather_object(shards, (own, unreadable))
    logits_NK = np.zeros((len(clips), learner.settings.model.num_classes), np.float32)
    is_read_N = np.zeros(len(clips), bool)
    for batches, found_unreadable in shards:
        unreadable |= found_unreadable
        for logits_BK, index_B in batches:
            logits_NK[index_B] = logits_BK
            is_read_N[index_B] = True
    return logits_NK[is_read_N], [clip for clip, is_read in zip(clips, is_read_N, strict=True) if is_read]
