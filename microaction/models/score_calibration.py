"""What turns a detector's scores into probabilities that can be believed, and says from which probability on an event counts.

Part of a detection checkpoint's `config.json`. Needs numpy and pydantic only.

Shapes: D detections, K classes, Q knots.
"""

from itertools import pairwise
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator


class ScoreCalibration(BaseModel):
    """For each class a piecewise linear map from its scores to the fraction of its detections that are true.

    `knots` [Q] are scores from 0 to 1, `fractions` [K][Q] the true fraction of each class at them. Both rise strictly, so that
    the order of a class's detections never changes, and none of its average precisions. `thresholds` [K] are working
    thresholds: of calibrated scores, from which on a detection counts as an event. `num_detections` is how many the maps were
    fitted on, and `num_matched` how many of those were true.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    knots: tuple[float, ...]
    fractions: tuple[tuple[float, ...], ...]
    thresholds: tuple[float, ...]
    num_detections: NonNegativeInt = 0
    num_matched: NonNegativeInt = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        knots, num_classes = self.knots, len(self.fractions)
        if len(knots) < 2 or knots[0] != 0 or knots[-1] != 1 or not _is_rising(knots):
            raise ValueError(f"knots must rise strictly from 0 to 1, not {_shortened(knots)}")
        if num_classes == 0 or len(self.thresholds) != num_classes:
            raise ValueError(
                f"fractions of {num_classes} classes and thresholds of {len(self.thresholds)} must be of the same classes"
            )
        for class_id, row in enumerate(self.fractions):
            if len(row) != len(knots):
                raise ValueError(f"class {class_id}: {len(row)} fractions for {len(knots)} knots")
            if not _is_rising(row) or not 0 <= row[0] < row[-1] <= 1:
                raise ValueError(f"class {class_id}: fractions must rise strictly within [0, 1], not {_shortened(row)}")
        for class_id, threshold in enumerate(self.thresholds):
            if not 0 <= threshold <= 1:
                raise ValueError(f"class {class_id}: threshold ({threshold}) must be in [0, 1]")
        if self.num_matched > self.num_detections:
            raise ValueError(f"num_matched ({self.num_matched}) is more than num_detections ({self.num_detections})")
        return self

    def calibrated(self, score_D: np.ndarray, class_D: np.ndarray) -> np.ndarray:
        """Return the probabilities [D] (float64) that detections with these scores and classes are true.

        Scores may be of any float type. Of one class, a higher score stays higher as long as scores differ by 1e-12 or more,
        as float32 scores from 1e-5 on do; keep float64, or close ones become equal. Raises `ValueError` for scores outside
        [0, 1], classes that the calibration does not have, and arrays of different lengths.
        """
        score_D, class_D = np.asarray(score_D, np.float64), self._checked(score_D, class_D)
        if not ((score_D >= 0) & (score_D <= 1)).all():  # also false for NaN
            raise ValueError(f"scores from {score_D.min()} to {score_D.max()} must be in [0, 1]")
        calibrated_D = np.empty(len(score_D), np.float64)
        for class_id in np.unique(class_D).tolist():
            is_its_D = class_D == class_id
            calibrated_D[is_its_D] = np.interp(score_D[is_its_D], self.knots, self.fractions[class_id])
        return calibrated_D

    def _checked(self, score_D: np.ndarray, class_D: np.ndarray) -> np.ndarray:
        """Return the classes as an array of indices."""
        scores, classes = np.shape(score_D), np.asarray(class_D, np.int64)
        if len(scores) != 1 or classes.shape != scores:
            raise ValueError(f"scores of shape {scores} and classes of shape {classes.shape} must both be [D]")
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(self.fractions):
            raise ValueError(f"classes {classes.min()}..{classes.max()} must be in 0..{len(self.fractions) - 1}")
        return classes


def _is_rising(values: tuple[float, ...]) -> bool:
    return all(before < after for before, after in pairwise(values))


def _shortened(values: tuple[float, ...], limit: int = 8) -> str:
    numbers = ", ".join(f"{value:g}" for value in values[:limit])
    return f"({numbers}{', …' if len(values) > limit else ''})"
