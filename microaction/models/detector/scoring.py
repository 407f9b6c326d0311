"""From a detector's outputs to scored detections of a whole video of any length. Needs torch and numpy.

The reference keeps the best points of a video, whatever its length. Here a second of video has so many, so that an hour is no
other than its minutes; and suppression runs over the whole video.

Shapes: P points, K classes, T steps, D detections.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from microaction.models.detector.config import STEPS_PER_S
from microaction.models.detector.decoding import MIN_LENGTH, Detections, soft_nms
from microaction.models.detector.network import DetectorOutputs

Score = Literal["product", "points", "dense"]
# The root of a product of 0.0025 is 0.05.
MIN_SCORES: dict[str, float] = {"product": 0.05, "points": 0.0025, "dense": 0.0025}
MAX_PER_S = 20  # candidates whose middle lies in a second
RUN_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of dense probabilities


def find_detections(outputs: DetectorOutputs, num_steps: int, score: Score, *, row: int = 0) -> Detections:
    """Return the detections of one video of `num_steps` steps, in steps (grid units, cut to the video), best first.

    `score`: "points", the point's probability; "product", the root of it times the mean dense probability over the segment;
    "dense", runs of dense probabilities above each of `RUN_THRESHOLDS`, with their mean.
    """
    dense_TK = None if outputs.dense is None else outputs.dense[row, :num_steps].float().sigmoid()
    if score == "dense":
        assert dense_TK is not None, "the detector has a dense head"
        found = dense_runs(dense_TK.numpy())
    else:
        found = _point_candidates(outputs, row, num_steps, dense_TK if score == "product" else None)
    return soft_nms(*most_likely(found), min_score=MIN_SCORES[score], max_detections=None)


def _point_candidates(outputs: DetectorOutputs, row: int, num_steps: int, dense_TK: Tensor | None) -> Detections:
    points = outputs.points
    probability_PK = outputs.logits[row].float().sigmoid() * outputs.mask[row][:, None]
    # The score is at most the root of the point's probability: others need no look.
    point_D, class_D = (probability_PK > MIN_SCORES["points"]).nonzero(as_tuple=True)
    offsets = outputs.offsets[row].float()
    offsets_D2 = offsets[point_D] if offsets.ndim == 2 else offsets[point_D, class_D]
    position_D, stride_D = points.position_P[point_D], points.stride_P[point_D]
    segments_D2 = torch.stack([position_D - offsets_D2[:, 0] * stride_D, position_D + offsets_D2[:, 1] * stride_D], 1)
    segments_D2 = segments_D2.clamp(-0.5, num_steps - 0.5)
    score_D = probability_PK[point_D, class_D]
    if dense_TK is not None:
        score_D = (score_D * mean_over(dense_TK, segments_D2, class_D)).sqrt()
    is_kept_D = (segments_D2[:, 1] - segments_D2[:, 0] > MIN_LENGTH) & (
        score_D > (MIN_SCORES["points"] if dense_TK is None else MIN_SCORES["product"])
    )
    return Detections(*(tensor[is_kept_D].numpy() for tensor in (segments_D2, score_D, class_D)))


def mean_over(dense_TK: Tensor, segments_D2: Tensor, class_D: Tensor) -> Tensor:
    """Return the mean [D] of a class's dense probability over each segment, in steps: step i speaks for i − 0.5 to i + 0.5."""
    T = len(dense_TK)
    total_TK = torch.cat([dense_TK.new_zeros((1, dense_TK.shape[1]), dtype=torch.float64), dense_TK.double().cumsum(0)])
    edges_D2 = (segments_D2.double() + 0.5).clamp(0, T)
    whole_D2 = edges_D2.floor().long().clamp(max=T - 1)
    at_D2 = total_TK[whole_D2, class_D[:, None]]
    at_D2 = at_D2 + (edges_D2 - whole_D2) * (total_TK[whole_D2 + 1, class_D[:, None]] - at_D2)
    length_D = (edges_D2[:, 1] - edges_D2[:, 0]).clamp(min=1e-6)
    return ((at_D2[:, 1] - at_D2[:, 0]) / length_D).float()


def dense_runs(dense_TK: np.ndarray) -> Detections:
    """Return the runs of steps above each threshold, with their mean probability."""
    segments, scores, classes = [], [], []
    total_TK = np.concatenate([np.zeros((1, dense_TK.shape[1])), dense_TK.astype(np.float64).cumsum(0)])
    for threshold in RUN_THRESHOLDS:
        class_D, start_D, end_D = runs_above(dense_TK, threshold)
        segments.append(np.stack([start_D - 0.5, end_D - 0.5], axis=1))
        scores.append((total_TK[end_D, class_D] - total_TK[start_D, class_D]) / (end_D - start_D))
        classes.append(class_D)
    return Detections(np.concatenate(segments), np.concatenate(scores), np.concatenate(classes))


def runs_above(dense_TK: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the class, the first step and the end of every run of steps above a threshold, by class and time."""
    is_on = np.pad(dense_TK > threshold, ((1, 1), (0, 0))).astype(np.int8)
    change_KT = np.diff(is_on, axis=0).T
    class_D, start_D = np.nonzero(change_KT == 1)
    _, end_D = np.nonzero(change_KT == -1)
    return class_D, start_D, end_D


def most_likely(found: Detections) -> Detections:
    """Return the `MAX_PER_S` best candidates of each second, in which their middles lie."""
    second_D = ((found.segments_D2.mean(axis=1) + 0.5) // STEPS_PER_S).astype(np.int64)
    order_D = np.lexsort((-found.score_D, second_D))
    sorted_D = second_D[order_D]
    first_D = np.searchsorted(sorted_D, sorted_D)
    kept = np.sort(order_D[np.arange(len(order_D)) - first_D < MAX_PER_S])
    return Detections(*(array[kept] for array in found))
