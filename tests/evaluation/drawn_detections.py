"""Detections whose probability of being true is known."""

from typing import NamedTuple

import numpy as np

from microaction.evaluation.detection import TimedAction
from microaction.taxonomy import BODY_PART_OF

SPACING_S = 10.0  # between the detections of a video, so that each can only match its own instance
DETECTIONS_PER_VIDEO = 40
MISSED_FRACTION = 0.05  # instances that nothing detects, per detection


class Drawn(NamedTuple):
    """Detections, the true instances, and the probability with which each detection was drawn to be true [D]."""

    detections: list[TimedAction]
    truth: list[TimedAction]
    probability_D: np.ndarray

    @property
    def score_D(self) -> np.ndarray:  # noqa: N802 - names its shape
        return np.array([event.score for event in self.detections])

    @property
    def class_D(self) -> np.ndarray:  # noqa: N802
        return np.array([event.action_id for event in self.detections])


def draw_detections(seed: int, num_videos: int) -> Drawn:
    """Draw detections of 52 classes, some a hundred times as frequent as others, whose true probability differs by body part
    and class: of two seeds the detector is the same, and the videos are others."""
    detector, rng = np.random.default_rng(7), np.random.default_rng(seed)
    bias_K = detector.normal(0, 0.8, 7)[np.asarray(BODY_PART_OF)] + detector.normal(0, 0.6, 52)
    frequency_K = 0.98 * detector.dirichlet(np.full(52, 0.5)) + 0.02 / 52
    num_detections = num_videos * DETECTIONS_PER_VIDEO
    class_D = rng.choice(52, num_detections, p=frequency_K)
    score_D = rng.beta(0.5, 4, num_detections)
    probability_D = 1 / (1 + np.exp(-(1.3 * np.log(score_D / (1 - score_D)) - 0.5 + bias_K[class_D])))
    is_true_D = rng.random(num_detections) < probability_D
    is_missed_D = rng.random(num_detections) < MISSED_FRACTION
    detections, truth = [], []
    for index, (action_id, score) in enumerate(zip(class_D.tolist(), score_D.tolist(), strict=True)):
        video, start_s = f"v{index // DETECTIONS_PER_VIDEO}", SPACING_S * (index % DETECTIONS_PER_VIDEO)
        detections.append(TimedAction(video, action_id, start_s, start_s + 2, score))
        if is_true_D[index]:
            truth.append(TimedAction(video, action_id, start_s, start_s + 2.2))
        if is_missed_D[index]:
            truth.append(TimedAction(video, action_id, start_s + 5, start_s + 7))
    return Drawn(detections, truth, probability_D)
