"""Matching found events to true ones."""

import pytest

from microaction.evaluation.detection import TimedAction, match_events, temporal_iou


def event(start: float, end: float, action: int = 1, video: str = "a", score: float = 1.0) -> TimedAction:
    return TimedAction(video, action, start, end, score)


def test_overlap_is_intersection_over_union() -> None:
    assert temporal_iou(event(0, 2), event(1, 3)) == pytest.approx(1 / 3)
    assert temporal_iou(event(0, 1), event(1, 2)) == 0
    assert temporal_iou(event(1, 2), event(1, 2)) == 1


def test_a_true_event_is_matched_only_once() -> None:
    agreement = match_events([event(0, 2, score=0.5), event(0, 2.1, score=0.9)], [event(0, 2)], 0.5)
    assert (agreement.num_matched, agreement.recall, agreement.precision) == (1, 1.0, 0.5)


@pytest.mark.parametrize("found", [event(0, 2, action=2), event(0, 2, video="b"), event(1, 3)])
def test_another_action_video_or_time_does_not_match(found: TimedAction) -> None:
    assert match_events([found], [event(0, 2)], 0.5).num_matched == 0


def test_an_event_matches_the_true_one_of_maximum_overlap() -> None:
    truth = [event(0, 2), event(2, 4)]
    assert match_events([event(1.8, 4), event(0, 2)], truth, 0.5).num_matched == 2


def test_no_events_give_zero_instead_of_an_error() -> None:
    agreement = match_events([], [], 0.5)
    assert (agreement.recall, agreement.precision) == (0.0, 0.0)
