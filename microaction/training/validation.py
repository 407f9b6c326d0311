"""Scores of the validation clips: each is scored by exactly one worker, and none is repeated to equalize shards.

Shapes: N clips, K actions, P body parts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip
from microaction.clips.sample import Sampling
from microaction.clips.skeletons import ClipSkeletons
from microaction.taxonomy import BODY_PARTS
from microaction.training.learner import RecognitionLearner
from microaction.video import DecodeError

BATCH_SIZE = 32


class ValidationScores(NamedTuple):
    """Logits [N, K] of the clips that can be read, probabilities [N, P] of body parts if the network has classifiers of their own
    for them, and those clips."""

    logits_NK: np.ndarray
    body_NP: np.ndarray | None
    clips: list[Clip]


def validate(
    learner: RecognitionLearner,
    clips: Sequence[Clip],
    unreadable: dict[str, str],
    on_unreadable: Callable[[DecodeError], None],
    *,
    skeletons: ClipSkeletons | None = None,
) -> ValidationScores:
    """Return the scores of the clips; the same in every worker.

    All workers call this together. `on_unreadable` adds a clip that cannot be read to `unreadable` (location → reason), which
    finally holds those of all workers.
    """
    rank = 0
    if learner.num_ranks > 1:
        rank = dist.get_rank()
        for statistics in learner.eval_model.buffers():  # of batch norms, which may differ between workers until here
            dist.broadcast(statistics, 0)
    shard = np.arange(rank, len(clips), learner.num_ranks)
    settings = learner.settings
    sampling = Sampling.of(settings.model, settings.preprocessing, people=settings.people)
    own: list[tuple[np.ndarray, np.ndarray | None, np.ndarray]] = []
    for batch in read_clips(clips, shard, sampling, BATCH_SIZE, skeletons=skeletons, on_unreadable=on_unreadable):
        if len(batch.index_B):
            frames_BTHWC, keypoints_BMTK3 = (
                torch.from_numpy(array).to(learner.device) for array in (batch.frames_BTHWC, batch.keypoints_BMTK3)
            )
            outputs = learner.predict(frames_BTHWC, keypoints_BMTK3)
            body_BP = outputs.body_probabilities
            own.append(
                (outputs.logits.cpu().numpy(), None if body_BP is None else body_BP.cpu().numpy(), batch.index_B)
            )
    shards: list[Any] = [(own, unreadable)]
    if learner.num_ranks > 1:
        shards = [None] * learner.num_ranks
        dist.all_gather_object(shards, (own, unreadable))
    logits_NK = np.zeros((len(clips), settings.model.num_classes), np.float32)
    body_NP = np.zeros((len(clips), len(BODY_PARTS)), np.float32)
    has_body = False
    is_read_N = np.zeros(len(clips), bool)
    for batches, found_unreadable in shards:
        unreadable |= found_unreadable
        for logits_BK, of_body_BP, index_B in batches:
            logits_NK[index_B] = logits_BK
            is_read_N[index_B] = True
            if of_body_BP is not None:
                body_NP[index_B], has_body = of_body_BP, True
    return ValidationScores(
        logits_NK[is_read_N],
        body_NP[is_read_N] if has_body else None,
        [clip for clip, is_read in zip(clips, is_read_N, strict=True) if is_read],
    )
