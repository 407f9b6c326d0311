"""From a detector's outputs to actions with times: candidates, soft non-maximum suppression. Needs torch and numpy.

Shapes: P points, K classes, D detections.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from microaction.models.detector.network import DetectorOutputs

MIN_SCORE = 0.001
MAX_PER_LEVEL = 2000
MIN_LENGTH = 0.05  # grid units
SIGMA = 0.5
MAX_DETECTIONS = 200
AREA_EPSILON = 1e-6  # that the reference adds to every length


class Detections(NamedTuple):
    """Actions of one video, best first: start and end [D, 2], score [D] and class [D]."""

    segments_D2: np.ndarray
    score_D: np.ndarray
    class_D: np.ndarray


def decode_detections(
    outputs: DetectorOutputs,
    *,
    features_per_s: float = 8.0,
    duration_s: float | None = None,
    min_score: float = MIN_SCORE,
    sigma: float = SIGMA,
    max_per_level: int | None = MAX_PER_LEVEL,
    max_detections: int | None = MAX_DETECTIONS,
) -> list[Detections]:
    """Return the actions of each video, in seconds, cut to `duration_s` if it is given."""
    decoded = []
    for row in range(len(outputs.logits)):
        kept = soft_nms(
            *candidates(outputs, row, min_score=min_score, max_per_level=max_per_level),
            sigma=sigma,
            min_score=min_score,
            max_detections=max_detections,
        )
        seconds_D2 = (kept.segments_D2 + 0.5) / features_per_s
        if duration_s is not None:
            seconds_D2 = seconds_D2.clip(0, duration_s)
        decoded.append(kept._replace(segments_D2=seconds_D2))
    return decoded


def candidates(
    outputs: DetectorOutputs, row: int, *, min_score: float = MIN_SCORE, max_per_level: int | None = MAX_PER_LEVEL
) -> Detections:
    """Return what one video's points say, in grid units, before suppression: of each level the best of all points and classes
    whose score exceeds `min_score`, without segments of no length."""
    points = outputs.points
    score_PK = outputs.logits[row].float().sigmoid() * outputs.mask[row][:, None]
    parts = []
    for stride in sorted(set(points.stride_P.tolist())):
        is_level_P = points.stride_P == stride
        flat = score_PK[is_level_P].flatten()
        chosen = torch.nonzero(flat > min_score).flatten()
        order = flat[chosen].argsort(descending=True, stable=True)
        chosen = chosen[order if max_per_level is None else order[:max_per_level]]
        point, class_id = chosen // score_PK.shape[1], chosen % score_PK.shape[1]
        offsets = outputs.offsets[row][is_level_P].float()
        offsets_D2 = offsets[point] if offsets.ndim == 2 else offsets[point, class_id]
        position = points.position_P[is_level_P][point]
        segments_D2 = torch.stack([position - offsets_D2[:, 0] * stride, position + offsets_D2[:, 1] * stride], dim=1)
        is_long = segments_D2[:, 1] - segments_D2[:, 0] > MIN_LENGTH
        parts.append((segments_D2[is_long], flat[chosen][is_long], class_id[is_long]))
    segments_D2, score_D, class_D = (torch.cat(each) for each in zip(*parts, strict=True))
    return Detections(_numpy(segments_D2), _numpy(score_D), _numpy(class_D))


def soft_nms(
    segments_D2: np.ndarray,
    score_D: np.ndarray,
    class_D: np.ndarray,
    *,
    sigma: float = SIGMA,
    min_score: float = MIN_SCORE,
    max_detections: int | None = MAX_DETECTIONS,
) -> Detections:
    """Return the detections with lower scores for those that overlap better ones of their class: score · exp(−IoU² / σ) (Bodla et
    al. 2017).

    What falls below `min_score` is left out, and what is not among the `max_detections` best.
    """
    segments_D2, score_D, class_D = (
        np.asarray(array, dtype)
        for array, dtype in ((segments_D2, np.float32), (score_D, np.float32), (class_D, np.int64))
    )
    kept_index, kept_score = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for class_id in np.unique(class_D):
        for group in _apart(segments_D2, np.flatnonzero(class_D == class_id)):
            index, score = _suppressed(segments_D2[group], score_D[group], sigma, min_score)
            kept_index.append(group[index])
            kept_score.append(score)
    index, score = np.concatenate(kept_index), np.concatenate(kept_score)
    order = np.argsort(-score, kind="stable")[:max_detections]
    return Detections(segments_D2[index[order]], score[order], class_D[index[order]])


def _apart(segments_D2: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chosen detections in groups that do not overlap each other, which suppression treats one by one."""
    order = chosen[np.argsort(segments_D2[chosen, 0], kind="stable")]
    reached = np.maximum.accumulate(segments_D2[order, 1])
    borders = np.flatnonzero(segments_D2[order[1:], 0] >= reached[:-1]) + 1
    yield from (np.sort(group) for group in np.split(order, borders))


def _suppressed(
    segments_D2: np.ndarray, score_D: np.ndarray, sigma: float, min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which detections of one class are left, in the order in which they were taken, and their scores."""
    start, end = segments_D2[:, 0].copy(), segments_D2[:, 1].copy()
    length = end - start + np.float32(AREA_EPSILON)
    left = np.arange(len(score_D))
    score = score_D.copy()
    taken: list[int] = []
    scores: list[np.float32] = []
    while len(left):
        best = int(np.argmax(score[left]))
        chosen = int(left[best])
        taken.append(chosen)
        scores.append(score[chosen])
        left = np.delete(left, best)
        overlap = np.maximum(0, np.minimum(end[chosen], end[left]) - np.maximum(start[chosen], start[left]))
        iou = overlap / (length[chosen] + length[left] - overlap)
        score[left] *= np.exp(-(iou * iou) / np.float32(sigma))
        left = left[score[left] >= min_score]
    return np.array(taken, np.int64), np.array(scores, np.float32)


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
