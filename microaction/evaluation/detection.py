"""Agreement of found events with the true instances of untrimmed video, and the metric of MMA-52.

Shapes: C classes, T thresholds, D detections of a class, N true instances of a video.

Source of the metric: the official code of the Micro-Action Analysis Grand Challenge's track 2 (2024).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from microaction.taxonomy import ACTIONS, BODY_PART_OF
from microaction.video.windows import MICROSECONDS

if TYPE_CHECKING:
    from microaction.clips.instances import AnnotatedVideo
    from microaction.models.detector import Detections

CHALLENGE_THRESHOLDS = (0.2, 0.5, 0.7)  # over which the challenge averages
ALL_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # over which the official code does
UNION_EPSILON_S = 1e-4  # that the official code adds to every union


class TimedAction(NamedTuple):
    """One action in one video over [start_s, end_s); `score` ranks found events, and has no meaning for true ones."""

    video: str
    action_id: int
    start_s: float
    end_s: float
    score: float = 1.0


@dataclass(frozen=True)
class Agreement:
    """Counts of events: true, found, and matched one to one."""

    num_true: int
    num_found: int
    num_matched: int

    @property
    def recall(self) -> float:
        """Fraction of the true events that were found; 0 if there is none."""
        return self.num_matched / self.num_true if self.num_true else 0.0

    @property
    def precision(self) -> float:
        """Fraction of the found events that are true; 0 if nothing was found."""
        return self.num_matched / self.num_found if self.num_found else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing matches."""
        return 2 * self.num_matched / (self.num_true + self.num_found) if self.num_matched else 0.0


def temporal_iou(a: TimedAction, b: TimedAction) -> float:
    """Return the length of the intersection over the length of the union, in [0, 1]."""
    intersection = max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
    union = (a.end_s - a.start_s) + (b.end_s - b.start_s) - intersection
    return intersection / union if union > 0 else 0.0


def match_events(found: Iterable[TimedAction], truth: Iterable[TimedAction], min_iou: float) -> Agreement:
    """Match found events to true ones of the same video and action whose temporal IoU is at least `min_iou`.

    See `matched_pairs`.
    """
    found, truth = list(found), list(truth)
    return Agreement(len(truth), len(found), len(matched_pairs(found, truth, min_iou)))


def matched_pairs(
    found: Iterable[TimedAction], truth: Iterable[TimedAction], min_iou: float
) -> list[tuple[TimedAction, TimedAction]]:
    """Return the found events that match a true one of the same video and action, each with that one, by falling score.

    Greedy, as in detection benchmarks: in order of score, each found event takes the free true event that it overlaps most, if
    their temporal IoU is at least `min_iou`.
    """
    free: dict[tuple[str, int], list[TimedAction]] = defaultdict(list)
    for event in truth:
        free[event.video, event.action_id].append(event)
    pairs = []
    for event in sorted(found, key=lambda event: -event.score):
        candidates = free[event.video, event.action_id]
        best = max(candidates, key=lambda true: temporal_iou(event, true), default=None)
        if best is not None and temporal_iou(event, best) >= min_iou:
            candidates.remove(best)
            pairs.append((event, best))
    return pairs


@dataclass(frozen=True)
class DetectionMAP:
    """Average precision of each class at each threshold of the temporal IoU [C, T].

    It is NaN for a class that has detections and no truth. The official code's mean is then NaN too; here such a class is left
    out of means, and `left_out` names it. A class with neither counts as 0, as in the official code.
    """

    ap_CT: np.ndarray
    thresholds: tuple[float, ...]

    @property
    def map_T(self) -> np.ndarray:  # noqa: N802 - names its shape
        """Mean over the classes at each threshold [T]; NaN if all are left out."""
        if np.isnan(self.ap_CT).all():
            return np.full(len(self.thresholds), np.nan)
        means: np.ndarray = np.nanmean(self.ap_CT, axis=0)
        return means

    @property
    def mAP(self) -> float:  # noqa: N802 - the field's own word
        """Mean over classes and thresholds."""
        return float(self.map_T.mean())

    @property
    def left_out(self) -> tuple[int, ...]:
        """Classes that are found and never true."""
        return tuple(np.flatnonzero(np.isnan(self.ap_CT).any(axis=1)).tolist())


def detection_map(
    detections: Iterable[TimedAction],
    truth: Iterable[TimedAction],
    *,
    num_classes: int = len(ACTIONS),
    thresholds: Sequence[float] = CHALLENGE_THRESHOLDS,
) -> DetectionMAP:
    """Return the average precision of detections, as the official code of MMA-52 computes it.

    Detections of a class are taken by falling score, of equal ones the later first. At each threshold one takes the true
    instance of its video and class that it overlaps most of those that are free and overlap at least so much; otherwise it
    is false. The overlap is intersection / (union + 0.0001 s). Precision is made monotone, and summed over every change of
    recall.

    `score` of true instances has no meaning. Raises `ValueError` for an action outside of [0, num_classes), a threshold outside
    of (0, 1], and scores or times that are not finite.
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold ({threshold}) must be in (0, 1]")
    found, true = _by_class(detections, num_classes), _by_class(truth, num_classes)
    ap_CT = np.zeros((num_classes, len(thresholds)))
    for action_id, events in found.items():
        ap_CT[action_id] = _average_precisions(events, true.get(action_id, []), thresholds)
    return DetectionMAP(ap_CT, tuple(thresholds))


def are_true(detections: Sequence[TimedAction], truth: Iterable[TimedAction], min_iou: float) -> np.ndarray:
    """Return which detections are true [D] (bool) at one threshold of the overlap, matched as `detection_map` does.

    Raises `ValueError` for scores or times that are not finite.
    """
    num_classes = 1 + max((event.action_id for event in detections), default=0)
    true = _by_class((event for event in truth if event.action_id < num_classes), num_classes)
    index_of: dict[int, list[int]] = defaultdict(list)
    for index, event in enumerate(detections):
        index_of[event.action_id].append(index)
    is_true_D = np.zeros(len(detections), bool)
    for action_id, events in _by_class(detections, num_classes).items():
        order, is_true_D1 = _matched(events, true.get(action_id, []), [min_iou])
        is_true_D[np.asarray(index_of[action_id])[order]] = is_true_D1[:, 0]
    return is_true_D


def timed_actions(found: "Detections", video: str, start_us: int, duration_us: int) -> list[TimedAction]:
    """Return detections, in seconds from the start of a track, on the timeline of its file; they end with the track.

    `start_us`: when the track begins on the file's timeline.
    """
    segments_D2 = found.segments_D2.astype(np.float64).clip(0, duration_us / MICROSECONDS) + start_us / MICROSECONDS
    rows = zip(segments_D2.tolist(), found.score_D.tolist(), found.class_D.tolist(), strict=True)
    return [TimedAction(video, class_id, start_s, end_s, score) for (start_s, end_s), score, class_id in rows]


def truth_of(videos: "Iterable[AnnotatedVideo]") -> list[TimedAction]:
    """Return the true instances of annotated videos."""
    return [TimedAction(video.name, *instance[:3]) for video in videos for instance in video.instances]


def as_body_parts(events: Iterable[TimedAction]) -> list[TimedAction]:
    """Return events with the body part of each action in place of it: for `detection_map(…, num_classes=7)`."""
    return [event._replace(action_id=BODY_PART_OF[event.action_id]) for event in events]


def _by_class(events: Iterable[TimedAction], num_classes: int) -> dict[int, list[TimedAction]]:
    of_class: dict[int, list[TimedAction]] = defaultdict(list)
    for event in events:
        if not 0 <= event.action_id < num_classes:
            raise ValueError(f"{event}: action {event.action_id} must be in 0..{num_classes - 1}")
        if not np.isfinite([event.start_s, event.end_s, event.score]).all():
            raise ValueError(f"{event}: times and scores must be finite")
        of_class[event.action_id].append(event)
    return of_class


def _average_precisions(
    found: Sequence[TimedAction], truth: Sequence[TimedAction], thresholds: Sequence[float]
) -> np.ndarray:
    """Return the average precision [T] of one class."""
    _, is_true_DT = _matched(found, truth, thresholds)
    return np.array([_area(is_true_D, len(truth)) for is_true_D in is_true_DT.T])


def _matched(
    found: Sequence[TimedAction], truth: Sequence[TimedAction], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of one class's detections [D], by falling score, and which are true in that order [D, T]."""
    spans_of: dict[str, np.ndarray] = {
        video: np.array([(event.start_s, event.end_s) for event in events])
        for video, events in _by_video(truth).items()
    }
    is_free_of = {video: np.ones((len(thresholds), len(spans)), bool) for video, spans in spans_of.items()}
    threshold_T = np.asarray(thresholds)
    order = np.argsort([event.score for event in found], kind="stable")[::-1]
    is_true_DT = np.zeros((len(found), len(thresholds)), bool)
    for place, index in enumerate(order.tolist()):
        event = found[index]
        spans_N2 = spans_of.get(event.video)
        if spans_N2 is None:
            continue
        iou_N = _overlaps(event, spans_N2)
        by_overlap = np.argsort(iou_N, kind="stable")[::-1]
        is_free_TN = is_free_of[event.video]
        may_take_TN = is_free_TN[:, by_overlap] & (iou_N[by_overlap] >= threshold_T[:, None])
        is_true_T = may_take_TN.any(axis=1)
        is_true_DT[place] = is_true_T
        taken_T = by_overlap[may_take_TN.argmax(axis=1)]
        is_free_TN[np.flatnonzero(is_true_T), taken_T[is_true_T]] = False
    return order, is_true_DT


def _by_video(events: Iterable[TimedAction]) -> dict[str, list[TimedAction]]:
    of_video: dict[str, list[TimedAction]] = defaultdict(list)
    for event in events:
        of_video[event.video].append(event)
    return of_video


def _overlaps(event: TimedAction, spans_N2: np.ndarray) -> np.ndarray:
    """Return the temporal IoU [N] as the official code has it."""
    start_N, end_N = spans_N2.T
    intersection_N = np.maximum(0.0, np.minimum(event.end_s, end_N) - np.maximum(event.start_s, start_N))
    union_N = (event.end_s - event.start_s) + (end_N - start_N) - intersection_N + UNION_EPSILON_S
    with np.errstate(divide="ignore", invalid="ignore"):  # of reversed segments, which overlap nothing
        iou_N: np.ndarray = np.where(intersection_N > 0, intersection_N / union_N, 0.0)
    return iou_N


def _area(is_true_D: np.ndarray, num_true: int) -> float:
    """Return the area under precision over recall; NaN if nothing is true."""
    if num_true == 0:
        return float("nan")
    hits_D = np.cumsum(is_true_D)
    recall = np.concatenate([[0.0], hits_D / num_true, [1.0]])
    precision = np.concatenate([[0.0], hits_D / np.arange(1, len(is_true_D) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    changes = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[changes + 1] - recall[changes]) * precision[changes + 1]).sum())
