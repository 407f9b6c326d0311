"""A detector's calibration, fitted on detections in videos of people whom it was not trained on, and its error.

Shapes: D detections, K classes, P body parts, Q knots, T candidate thresholds.

Rare actions have too few detections for a map of their own. So there is a map of all detections, one of each body part that is
drawn to it, and one of each action that is drawn to its body part's: at each knot the one above counts as some detections that
are known beforehand, where an action has many of its own they outvote it. Working thresholds are chosen in the same way, and how
much the one above counts for them is cross-validated over videos.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from microaction.evaluation.calibration import NUM_BINS, ConfidenceBin, binned, mean_gap
from microaction.evaluation.detection import TimedAction, are_true
from microaction.models.score_calibration import ScoreCalibration
from microaction.taxonomy import ACTIONS, BODY_PART_OF

MIN_IOU = 0.5  # from which on a detection is true: the challenge's middle threshold
MAX_KNOTS_OF_A_KIND = 12  # quantiles of the scores of all detections, and of those that are true
DETECTIONS_PER_KNOT = 20  # fewer would let single detections decide how a map bends
KNOT_DECIMALS = 6  # closer quantiles are one knot
# What the map above counts as, at each knot. The log loss on other videos is least at 10 where the classes of a body part differ
# little, and at 1 to 3 where they differ as much as all others do (drawn detections, and noisy copies of MMA-52's val).
PRIOR_DETECTIONS = 5.0
# What the one above counts as where a threshold is chosen, in true instances; which of them is cross-validated, since no single
# one will do: of the classes' mean F1 on other videos, 20 is best on the same copies of val, which has 24 classes of fewer (2
# points more than none, 4 more than 300), and 60 on drawn people, where most actions are found alike.
PRIOR_INSTANCES = (5.0, 20.0, 60.0, 300.0)
DEFAULT_PRIOR_INSTANCES = 20.0  # where there are too few videos to leave some out
NUM_FOLDS = 5
MIN_SLOPE = 1e-3  # of a map, so that it rises strictly; it changes no probability by more than this
CANDIDATE_T = np.geomspace(1e-3, 1.0, 256)  # working thresholds 3% apart: those of poor classes lie near 0
DEFAULT_THRESHOLD = 0.5  # where nothing true was found at all


class _Counts(NamedTuple):
    """How many detections reach each candidate threshold [T], how many of them are true [T], and all true instances."""

    found_T: np.ndarray
    true_T: np.ndarray
    num_true: float


class _Scored(NamedTuple):
    """Detections of some videos, which of them are true, and how many instances there are of each class."""

    score_D: np.ndarray
    class_D: np.ndarray
    is_true_D: np.ndarray
    num_true_K: np.ndarray


def fit_score_calibration(
    detections: Sequence[TimedAction],
    truth: Sequence[TimedAction],
    *,
    num_classes: int = len(ACTIONS),
    min_iou: float = MIN_IOU,
    body_part_of: Sequence[int] | None = None,
) -> ScoreCalibration:
    """Return the calibration that fits detections best; they must be of videos that did not train the detector.

    A detection is true if it matches a true instance as the metric has it: greedily by falling score, with an overlap of at least
    `min_iou`. The working threshold of a class maximizes its F1 on these data, together with some instances of its body part;
    with how many is decided by the classes' mean F1 in videos that were left out. `body_part_of` [K] groups the classes; None:
    the actions' body parts, or one group if there are not 52 classes. A class without detections or truth has its body part's
    map and threshold, and without any detections scores stay as they are. Raises `ValueError` for scores outside [0, 1] and
    classes outside of [0, num_classes).
    """
    part_of_K = np.asarray(_body_parts(num_classes) if body_part_of is None else body_part_of)
    score_D, class_D = np.array([event.score for event in detections]), _classes(detections, num_classes)
    if not ((score_D >= 0) & (score_D <= 1)).all():
        raise ValueError(f"scores from {score_D.min()} to {score_D.max()} must be in [0, 1]")
    is_true_D, class_N = are_true(detections, truth, min_iou), _classes(truth, num_classes)

    fold_of = {video: fold % NUM_FOLDS for fold, video in enumerate(sorted({event.video for event in truth}))}
    fold_D, fold_N = (np.array([fold_of.get(event.video, 0) for event in events]) for events in (detections, truth))

    def scored(is_in_D: np.ndarray, is_in_N: np.ndarray) -> _Scored:
        num_true_K = np.bincount(class_N[is_in_N], minlength=num_classes)
        return _Scored(score_D[is_in_D], class_D[is_in_D], is_true_D[is_in_D], num_true_K)

    prior_instances = DEFAULT_PRIOR_INSTANCES
    if len(fold_of) >= NUM_FOLDS:
        folds = [
            (scored(fold_D != fold, fold_N != fold), scored(fold_D == fold, fold_N == fold))
            for fold in range(NUM_FOLDS)
        ]
        prior_instances = _best_prior(folds, part_of_K)
    everything = scored(np.ones(len(detections), bool), np.ones(len(truth), bool))
    calibration = _fit_maps(everything, part_of_K)
    return calibration.model_copy(
        update={"thresholds": _thresholds(calibration, everything, part_of_K, prior_instances)}
    )


def _fit_maps(scored: _Scored, part_of_K: np.ndarray) -> ScoreCalibration:
    """Return the maps that fit detections best, with thresholds that are not chosen yet."""
    score_D, class_D, is_true_D, _ = scored
    knots_Q = _knots(score_D, is_true_D)
    weight_DQ = _knot_weights(score_D, knots_Q)
    overall_Q = _map_of(weight_DQ, is_true_D, knots_Q)
    fractions_KQ = np.empty((len(part_of_K), len(knots_Q)))
    for part in np.unique(part_of_K).tolist():
        is_in_D = part_of_K[class_D] == part
        part_Q = _map_of(weight_DQ[is_in_D], is_true_D[is_in_D], overall_Q)
        for class_id in np.flatnonzero(part_of_K == part).tolist():
            is_its_D = class_D == class_id
            fractions_KQ[class_id] = _map_of(weight_DQ[is_its_D], is_true_D[is_its_D], part_Q)
    fractions_KQ = (1 - MIN_SLOPE) * fractions_KQ + MIN_SLOPE * knots_Q
    return ScoreCalibration(
        knots=tuple(knots_Q.tolist()),
        fractions=tuple(map(tuple, fractions_KQ.tolist())),
        thresholds=(DEFAULT_THRESHOLD,) * len(part_of_K),
        num_detections=len(score_D),
        num_matched=int(is_true_D.sum()),
    )


def apply_calibration(detections: Sequence[TimedAction], calibration: ScoreCalibration) -> list[TimedAction]:
    """Return the detections with calibrated scores, in the same order. Raises as `ScoreCalibration.calibrated`."""
    calibrated_D = calibration.calibrated(
        np.array([event.score for event in detections]), np.array([event.action_id for event in detections])
    )
    return [event._replace(score=score) for event, score in zip(detections, calibrated_D.tolist(), strict=True)]


def detection_bins(
    detections: Sequence[TimedAction],
    truth: Sequence[TimedAction],
    *,
    min_iou: float = MIN_IOU,
    num_bins: int = NUM_BINS,
) -> list[ConfidenceBin]:
    """Return bins of equal width of the scores, in [0, 1], with the fraction of the detections that are true."""
    return binned(np.array([event.score for event in detections]), are_true(detections, truth, min_iou), num_bins)


def detection_calibration_error(
    detections: Sequence[TimedAction],
    truth: Sequence[TimedAction],
    *,
    min_iou: float = MIN_IOU,
    num_bins: int = NUM_BINS,
) -> float:
    """Return the expected calibration error: how far scores are from the fraction that is true, on average over detections.

    0 without detections. Most detections of a detector that keeps all have scores near 0 and are false, and lower it.
    """
    return mean_gap(detection_bins(detections, truth, min_iou=min_iou, num_bins=num_bins))


def _body_parts(num_classes: int) -> tuple[int, ...]:
    return BODY_PART_OF if num_classes == len(BODY_PART_OF) else (0,) * num_classes


def _classes(events: Sequence[TimedAction], num_classes: int) -> np.ndarray:
    classes = np.array([event.action_id for event in events], np.int64)
    if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
        raise ValueError(f"actions {classes.min()}..{classes.max()} must be in 0..{num_classes - 1}")
    return classes


def _knots(score_D: np.ndarray, is_true_D: np.ndarray) -> np.ndarray:
    """Return scores from 0 to 1 [Q] at which maps may bend: more where there are more detections, and more true ones."""
    knots = {0.0, 1.0}
    for scores in (score_D, score_D[is_true_D]):
        num_knots = min(MAX_KNOTS_OF_A_KIND, len(scores) // DETECTIONS_PER_KNOT)
        if num_knots:
            inner = np.quantile(scores, (np.arange(num_knots) + 0.5) / num_knots)
            knots.update(np.round(inner, KNOT_DECIMALS).tolist())
    return np.array(sorted(knots))


def _knot_weights(score_D: np.ndarray, knots_Q: np.ndarray) -> np.ndarray:
    """Return how much each detection belongs to each knot [D, Q]: to the two around its score, and 1 in all."""
    upper_D = np.clip(np.searchsorted(knots_Q, score_D), 1, len(knots_Q) - 1)
    nearness_D = (score_D - knots_Q[upper_D - 1]) / (knots_Q[upper_D] - knots_Q[upper_D - 1])
    weight_DQ = np.zeros((len(score_D), len(knots_Q)))
    rows = np.arange(len(score_D))
    weight_DQ[rows, upper_D] = nearness_D
    weight_DQ[rows, upper_D - 1] = 1 - nearness_D
    return weight_DQ


def _map_of(weight_DQ: np.ndarray, is_true_D: np.ndarray, prior_Q: np.ndarray) -> np.ndarray:
    """Return the fraction of the detections that is true at each knot [Q], never falling, drawn to `prior_Q`."""
    from sklearn.isotonic import IsotonicRegression  # takes a second of every import

    weight_Q = weight_DQ.sum(axis=0) + PRIOR_DETECTIONS
    fraction_Q = (weight_DQ[is_true_D].sum(axis=0) + PRIOR_DETECTIONS * prior_Q) / weight_Q
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(
        np.arange(len(fraction_Q)), fraction_Q, sample_weight=weight_Q
    )
    return np.asarray(fitted, np.float64)


def _best_prior(folds: Sequence[tuple[_Scored, _Scored]], part_of_K: np.ndarray) -> float:
    """Return the member of `PRIOR_INSTANCES` whose thresholds have the best mean F1 of classes on what each fold leaves out."""
    num_found, num_right = np.zeros((2, len(PRIOR_INSTANCES), len(part_of_K)))
    for fitted, left_out in folds:
        calibration = _fit_maps(fitted, part_of_K)
        calibrated_D = calibration.calibrated(left_out.score_D, left_out.class_D)
        for number, prior_instances in enumerate(PRIOR_INSTANCES):
            thresholds_K = np.array(_thresholds(calibration, fitted, part_of_K, prior_instances))
            is_event_D = calibrated_D >= thresholds_K[left_out.class_D]
            num_found[number] += np.bincount(left_out.class_D[is_event_D], minlength=len(part_of_K))
            is_right_D = is_event_D & left_out.is_true_D
            num_right[number] += np.bincount(left_out.class_D[is_right_D], minlength=len(part_of_K))
    num_true_K = np.sum([left_out.num_true_K for _, left_out in folds], axis=0)
    f1_RK = 2 * num_right / np.maximum(num_found + num_true_K, 1)
    return PRIOR_INSTANCES[int(f1_RK[:, num_true_K > 0].mean(axis=1).argmax())]


def _thresholds(
    calibration: ScoreCalibration, scored: _Scored, part_of_K: np.ndarray, prior_instances: float
) -> tuple[float, ...]:
    """Return the threshold of the best F1 of each class [K], with `prior_instances` instances of those above."""
    _, class_D, is_true_D, num_true_K = scored
    calibrated_D = calibration.calibrated(scored.score_D, class_D)

    def counts(is_in_K: np.ndarray, prior: _Counts) -> _Counts:
        is_in_D = is_in_K[class_D]
        found_T, true_T = (_num_at_least(calibrated_D[is_in_D & mask]) for mask in (np.True_, is_true_D))
        prior_weight = prior_instances / max(prior.num_true, 1)
        return _Counts(
            found_T + prior_weight * prior.found_T,
            true_T + prior_weight * prior.true_T,
            num_true_K[is_in_K].sum() + (prior_instances if prior.num_true else 0),
        )

    nothing = _Counts(np.zeros(len(CANDIDATE_T)), np.zeros(len(CANDIDATE_T)), 0)
    overall = counts(np.ones(len(part_of_K), bool), nothing)
    of_part = {part: counts(part_of_K == part, overall) for part in np.unique(part_of_K).tolist()}
    return tuple(
        _best_threshold(counts(np.arange(len(part_of_K)) == class_id, of_part[part]))
        for class_id, part in enumerate(part_of_K.tolist())
    )


def _num_at_least(score_D: np.ndarray) -> np.ndarray:
    """Return how many scores reach each candidate threshold [T]."""
    return np.asarray(len(score_D) - np.searchsorted(np.sort(score_D), CANDIDATE_T), np.float64)


def _best_threshold(counts: _Counts) -> float:
    """Return the candidate of the best F1, of equal ones the middle."""
    f1_T = 2 * counts.true_T / np.maximum(counts.found_T + counts.num_true, 1e-12)
    if f1_T.max() <= 0:
        return DEFAULT_THRESHOLD
    best = np.flatnonzero(f1_T >= f1_T.max() - 1e-9)
    return float(CANDIDATE_T[best[len(best) // 2]])
