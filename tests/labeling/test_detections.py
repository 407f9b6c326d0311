"""From the detections and dense probabilities of a whole video to its events."""

from collections.abc import Sequence

import numpy as np

from microaction.labeling.detection_rule import DetectionRule
from microaction.labeling.detections import detect
from microaction.labeling.feature_tracks import Track
from microaction.models.detector import DetectionHead, Detections
from microaction.video.windows import MICROSECONDS, STEP_US
from tests.models.detectors import small_detector

DURATION_S, STEPS_PER_S, NUM_CLASSES = 90, 8, 3
SCORE = 0.75

Found = tuple[int, float, float]  # a class from when to when, in seconds


class ToldHead(DetectionHead):
    """Says what it is told: what is detected, and when the dense probability of which class is 1."""

    def __init__(self, detections: Sequence[Found], lasting: Sequence[Found]) -> None:
        self.config = small_detector().config
        self.detections, self.lasting = detections, lasting

    def __call__(self, embedded_TC: np.ndarray) -> tuple[Detections, np.ndarray]:
        dense_TK = np.full((len(embedded_TC), NUM_CLASSES), 0.1, np.float32)
        for action, start_s, end_s in self.lasting:
            dense_TK[round(start_s * STEPS_PER_S) : round(end_s * STEPS_PER_S), action] = 1
        segments = np.array([row[1:] for row in self.detections], np.float32).reshape(-1, 2)
        classes = np.array([row[0] for row in self.detections], np.int64)
        return Detections(segments, np.full(len(classes), SCORE, np.float32), classes), dense_TK


def events(detections: Sequence[Found], lasting: Sequence[Found], begins_at_s: int = 0) -> list[Found]:
    """Return the events of a track of 90 s."""
    head = ToldHead(detections, lasting)
    assert head.config.num_frames == 16 * STEPS_PER_S, "the detector learned from 16 s"
    first, length = begins_at_s * STEPS_PER_S, DURATION_S * STEPS_PER_S
    track = Track(0, 0, first, length, (first + length) * STEP_US)
    rule = DetectionRule(None, (0.5,) * NUM_CLASSES, max_gap_us=0, min_event_us=0)
    found = detect([(track, np.zeros((length, 1), np.float16))], 0, head, rule)
    return [(event.action_id, event.start_us / MICROSECONDS, event.end_us / MICROSECONDS) for event in found.events]


def test_a_long_posture_that_is_detected_where_it_begins_and_ends_is_one_event() -> None:
    assert events([(1, 9.75, 22), (1, 50, 62.25)], [(1, 10, 62)]) == [(1, 9.75, 62.25)]


def test_a_long_posture_that_is_detected_once_is_one_event() -> None:
    assert events([(1, 75, 89.5)], [(1, 40, 90)]) == [(1, 40, 90)]
    assert events([(1, 0, 12)], [(1, 0, 90)], begins_at_s=30) == [(1, 30, 120)]


def test_what_the_detector_saw_whole_in_training_is_as_long_as_it_says() -> None:
    assert events([(1, 10, 12), (1, 20, 26)], [(1, 10, 26)]) == [(1, 10, 12), (1, 20, 26)]


def test_a_long_posture_is_that_of_its_action_alone_and_needs_a_detection() -> None:
    detections, lasting = [(0, 12, 13), (1, 5, 6), (1, 70, 71)], [(1, 10, 62), (2, 10, 62)]
    assert events(detections, lasting) == [(0, 12, 13), (1, 5, 6), (1, 70, 71)]
