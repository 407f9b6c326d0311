"""From the detections and dense probabilities of a whole video to its events."""

from collections.abc import Sequence

import numpy as np

from microaction.labeling.detection_rule import DetectionRule
from microaction.labeling.detections import detect
from microaction.labeling.feature_tracks import Track
from microaction.models.detector import DetectionHead, Detections
from microaction.video.windows import MICROSECONDS, STEP_US

DURATION_S, STEPS_PER_S, NUM_CLASSES = 90, 8, 3
SCORE = 0.75

Found = tuple[int, float, float]  # a class from when to when, in seconds


class FixedHead(DetectionHead):
    """Returns given detections, and a dense probability of 1 in given spans."""

    def __init__(self, detections: Sequence[Found], active: Sequence[Found]) -> None:
        self.detections, self.active = detections, active

    def __call__(self, embedded_TC: np.ndarray) -> tuple[Detections, np.ndarray]:
        dense_TK = np.full((len(embedded_TC), NUM_CLASSES), 0.1, np.float32)
        for action, start_s, end_s in self.active:
            dense_TK[round(start_s * STEPS_PER_S) : round(end_s * STEPS_PER_S), action] = 1
        segments = np.array([row[1:] for row in self.detections], np.float32).reshape(-1, 2)
        classes = np.array([row[0] for row in self.detections], np.int64)
        return Detections(segments, np.full(len(classes), SCORE, np.float32), classes), dense_TK


def events(detections: Sequence[Found], active: Sequence[Found], start_s: int = 0, cut_s: float = 0) -> list[Found]:
    """Return the events of a track of 90 s, whose last step is cut, by a detector that is trained on clips of 16 s."""
    first, length = start_s * STEPS_PER_S, DURATION_S * STEPS_PER_S
    track = Track(0, 0, first, length, (first + length) * STEP_US - round(cut_s * MICROSECONDS))
    rule = DetectionRule(None, (0.5,) * NUM_CLASSES, max_gap_us=0, min_event_us=0, clip_us=16 * MICROSECONDS)
    features_TC = np.zeros((length, 1), np.float16)
    found = detect([(track, features_TC)], 0, FixedHead(detections, active), rule)
    return [(event.action_id, event.start_us / MICROSECONDS, event.end_us / MICROSECONDS) for event in found.events]


def test_pieces_of_a_long_action_are_one_event() -> None:
    assert events([(1, 9.75, 22), (1, 50, 62.25)], [(1, 10, 62)]) == [(1, 9.75, 62.25)]


def test_one_piece_of_a_long_action_is_extended_to_it() -> None:
    assert events([(1, 75, 89.5)], [(1, 40, 90)]) == [(1, 40, 90)]
    assert events([(1, 0, 12)], [(1, 0, 90)], start_s=30, cut_s=0.05) == [(1, 30, 119.95)]


def test_a_long_action_may_pause_for_a_second() -> None:
    pieces = [(1, 10, 22), (1, 58, 70)]
    assert events(pieces, [(1, 10, 30), (1, 31, 50), (1, 51, 70)]) == [(1, 10, 70)]
    assert events(pieces, [(1, 10, 30), (1, 32, 70)]) == [(1, 10, 30), (1, 32, 70)]


def test_only_what_is_longer_than_a_clip_is_extended_to() -> None:
    pieces = [(1, 10, 19), (1, 20, 26)]
    assert events(pieces, [(1, 10, 26)]) == pieces
    assert events(pieces, [(1, 10, 26.125)]) == [(1, 10, 26.125)]


def test_short_detections_in_a_long_activity_stay() -> None:
    nods = [(1, 10, 14), (1, 18, 22), (1, 30, 38)]
    assert events(nods, [(1, 10, 38)]) == nods


def test_a_detection_that_touches_an_activity_stays() -> None:
    assert events([(1, 0, 12)], [(1, 8, 75)]) == [(1, 0, 12)]
    assert events([(1, 0, 12)], [(1, 6, 75)]) == [(1, 0, 75)]


def test_an_activity_is_of_one_action_and_needs_a_detection() -> None:
    detections = [(0, 12, 24)]
    assert events(detections, [(1, 10, 62), (2, 10, 62)]) == detections
