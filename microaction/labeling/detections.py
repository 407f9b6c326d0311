"""What a detector's committed features say: detections of whole videos, as events, and the dense probabilities. Knows no Ray.

A pure function of what is committed: neither the cut into chunks nor their order changes anything.

Shapes: T steps, C channels of the first layer, K actions, D detections.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from microaction.labeling.detection_rule import DetectionRule
from microaction.labeling.events import Event
from microaction.labeling.feature_tracks import Track
from microaction.models.detector import DetectionHead, Detections
from microaction.models.detector.scoring import runs_above
from microaction.video.windows import MICROSECONDS, STEP_US, Span

MAX_DIP_STEPS = MICROSECONDS // STEP_US  # a second in which a long activity seems to pause
STEPS_PER_ROW = 60 * MICROSECONDS // STEP_US  # of the table of activity


class Activity(NamedTuple):
    """Dense probabilities [T, K] (uint8, times 255) of steps in a row, over a span."""

    span: Span
    probabilities_TK: np.ndarray


class DetectedPerson(NamedTuple):
    """What a detector says of one person: events by action and time, and the activity by time."""

    events: list[Event]
    activity: list[Activity]


def head_of(data: bytes) -> DetectionHead:
    """Return the head that a publication's task gets (`DetectionHead.to_bytes`), which computes with one thread."""
    torch.set_num_threads(1)
    return DetectionHead.from_bytes(data)


def detect(
    tracks: Sequence[tuple[Track, np.ndarray]], shift_us: int, head: DetectionHead, rule: DetectionRule
) -> DetectedPerson:
    """Return what a detector says of one person's tracks and their features [T, C], `shift_us` later."""
    found: list[Event] = []
    activity: list[Activity] = []
    for track, features_TC in tracks:
        span = track.span(shift_us)
        detections, dense_TK = head(features_TC)
        found += _events(detections, dense_TK, span, rule)
        activity += _rows(dense_TK, span)
    joined = [event for event in _joined(found, rule.max_gap_us) if event.end_us - event.start_us >= rule.min_event_us]
    return DetectedPerson(joined, activity)


def _events(found: Detections, dense_TK: np.ndarray, span: Span, rule: DetectionRule) -> Iterator[Event]:
    """Yield the detections of a track that are events, cut to its span."""
    score_D = found.score_D.astype(np.float64)
    if rule.calibration is not None:
        score_D = rule.calibration.calibrated(score_D, found.class_D)
    is_event_D = score_D >= np.asarray(rule.thresholds)[found.class_D]
    edges_D2 = span.start_us + np.rint(found.segments_D2.astype(np.float64) * MICROSECONDS).astype(np.int64)
    edges_D2 = edges_D2.clip(span.start_us, span.end_us)
    is_event_D &= edges_D2[:, 1] > edges_D2[:, 0]
    activities = _long_activities(dense_TK, span, rule)
    for number in np.flatnonzero(is_event_D).tolist():
        detected, action = Span(*edges_D2[number].tolist()), int(found.class_D[number])
        if detected.end_us - detected.start_us > rule.clip_us // 2:
            detected = _extended(detected, activities[action])
        first = (detected.start_us - span.start_us) // STEP_US
        inside = dense_TK[first : max(-(-(detected.end_us - span.start_us) // STEP_US), first + 1), action]
        yield Event(action, detected.start_us, detected.end_us, float(score_D[number]), float(inside.max()), 0)


def _extended(detected: Span, activities: Sequence[Span]) -> Span:
    """Return a detection as long as the activity that it is a piece of, or as it is: most of a piece lies in the activity."""
    for active in activities:
        common_us = min(detected.end_us, active.end_us) - max(detected.start_us, active.start_us)
        if 2 * common_us >= detected.end_us - detected.start_us:
            return Span(min(detected.start_us, active.start_us), max(detected.end_us, active.end_us))
    return detected


def _long_activities(dense_TK: np.ndarray, span: Span, rule: DetectionRule) -> dict[int, list[Span]]:
    """Return by action the spans of more than a clip in which it is active, but for short dips."""
    runs: dict[int, list[list[int]]] = defaultdict(list)
    classes_starts_ends = runs_above(dense_TK, rule.active_probability)
    for action, start, end in zip(*(array.tolist() for array in classes_starts_ends), strict=True):
        if runs[action] and start - runs[action][-1][1] <= MAX_DIP_STEPS:
            runs[action][-1][1] = end
        else:
            runs[action].append([start, end])
    activities: dict[int, list[Span]] = defaultdict(list)
    for action, its_runs in runs.items():
        for start, end in its_runs:
            start_us, end_us = (span.start_us + step * STEP_US for step in (start, end))
            if end_us - start_us > rule.clip_us:
                activities[action].append(Span(start_us, min(end_us, span.end_us)))
    return activities


def _joined(events: Iterable[Event], max_gap_us: int) -> list[Event]:
    """Return events by action and time; those of one action that overlap, touch or are near are one, and as likely as the
    likeliest."""
    joined: list[Event] = []
    for event in sorted(events, key=lambda event: (event.action_id, event.start_us, event.end_us)):
        before = joined[-1] if joined else None
        if before is None or before.action_id != event.action_id or event.start_us > before.end_us + max_gap_us:
            joined.append(event)
            continue
        joined[-1] = Event(
            event.action_id,
            before.start_us,
            max(before.end_us, event.end_us),
            max(before.probability, event.probability),
            max(before.peak_probability, event.peak_probability),
            0,
        )
    return joined


def _rows(dense_TK: np.ndarray, span: Span) -> Iterator[Activity]:
    for first in range(0, len(dense_TK), STEPS_PER_ROW):
        some = dense_TK[first : first + STEPS_PER_ROW]
        start_us = span.start_us + first * STEP_US
        part = Span(start_us, min(start_us + len(some) * STEP_US, span.end_us))
        yield Activity(part, np.rint(some * 255).astype(np.uint8))
