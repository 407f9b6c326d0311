"""A detector's calibration: right on people whom it was not fitted on, and never another order."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from microaction.evaluation.detection import Agreement, TimedAction, are_true, detection_map, match_events
from microaction.evaluation.detection_calibration import (
    CANDIDATE_T,
    DEFAULT_THRESHOLD,
    apply_calibration,
    detection_bins,
    detection_calibration_error,
    fit_score_calibration,
)
from microaction.models.score_calibration import ScoreCalibration
from microaction.taxonomy import BODY_PART_OF
from tests.evaluation.drawn_detections import Drawn, draw_detections

LINEAR = {"knots": (0.0, 0.5, 1.0), "fractions": ((0.0, 0.2, 0.9), (0.1, 0.2, 0.3)), "thresholds": (0.15, 0.2)}


@pytest.fixture(scope="module")
def fresh() -> Drawn:
    return draw_detections(seed=99, num_videos=400)


@pytest.fixture(scope="module")
def fitted() -> ScoreCalibration:
    drawn = draw_detections(seed=1, num_videos=300)
    return fit_score_calibration(drawn.detections, drawn.truth)


def event_f1(drawn: Drawn, is_event_D: np.ndarray) -> float:
    events = [event for event, is_event in zip(drawn.detections, is_event_D, strict=True) if is_event]
    return match_events(events, drawn.truth, 0.5).f1


def test_probabilities_are_right_on_fresh_people(fitted: ScoreCalibration, fresh: Drawn) -> None:
    calibrated = apply_calibration(fresh.detections, fitted)
    raw_error, error = (detection_calibration_error(each, fresh.truth) for each in (fresh.detections, calibrated))
    assert raw_error > 0.03
    assert error < 0.01
    off_D = np.abs([event.score for event in calibrated] - fresh.probability_D)
    # Classes of the same score differ: one map for all is off by more, even if it is fitted on the fresh people themselves.
    alike = [[event._replace(action_id=0) for event in events] for events in fresh[:2]]
    one_map = fit_score_calibration(*alike, num_classes=1)
    one_off_D = np.abs(one_map.calibrated(fresh.score_D, np.zeros_like(fresh.class_D)) - fresh.probability_D)
    assert off_D.mean() < 0.75 * one_off_D.mean()


@pytest.mark.parametrize("num_videos", [2, 5, 20])
def test_few_detections_are_not_overfitted(num_videos: int, fresh: Drawn) -> None:
    drawn = draw_detections(seed=3, num_videos=num_videos)
    calibration = fit_score_calibration(drawn.detections, drawn.truth)
    off_D = np.abs(calibration.calibrated(fresh.score_D, fresh.class_D) - fresh.probability_D)
    raw_off_D = np.abs(fresh.score_D - fresh.probability_D)
    assert off_D.mean() < raw_off_D.mean()
    assert (calibration.num_detections, calibration.num_matched) == (
        len(drawn.detections),
        are_true(drawn.detections, drawn.truth, 0.5).sum(),
    )


def test_average_precisions_do_not_change(fitted: ScoreCalibration, fresh: Drawn) -> None:
    before = detection_map(fresh.detections, fresh.truth)
    after = detection_map(apply_calibration(fresh.detections, fitted), fresh.truth)
    np.testing.assert_array_equal(after.ap_CT, before.ap_CT)


@given(st.lists(st.floats(0, 1, width=32).filter(lambda score: score == 0 or score >= 1e-5), min_size=2, unique=True))
def test_the_order_of_a_classes_scores_never_changes(fitted: ScoreCalibration, scores: list[float]) -> None:
    score_D = np.sort(scores)
    for class_id in (0, 9, 30):
        assert (np.diff(fitted.calibrated(score_D, np.full(len(score_D), class_id))) > 0).all()


def test_thresholds_find_nearly_the_best_f1_on_fresh_people(fitted: ScoreCalibration, fresh: Drawn) -> None:
    calibrated_D = fitted.calibrated(fresh.score_D, fresh.class_D)
    found = event_f1(fresh, calibrated_D >= np.asarray(fitted.thresholds)[fresh.class_D])
    one_threshold = max(event_f1(fresh, calibrated_D >= threshold) for threshold in CANDIDATE_T[::8])
    assert found > one_threshold - 0.02
    assert found > event_f1(fresh, fresh.score_D >= 0.5) + 0.05

    # A frequent class has a threshold of its own, near the best that its fresh detections allow.
    class_id = Counter(fresh.class_D.tolist()).most_common(1)[0][0]
    is_its_D, truth = fresh.class_D == class_id, [event for event in fresh.truth if event.action_id == class_id]
    detections = [event for event in fresh.detections if event.action_id == class_id]
    its = Drawn(detections, truth, fresh.probability_D[is_its_D])
    best = max(event_f1(its, calibrated_D[is_its_D] >= threshold) for threshold in CANDIDATE_T[::4])
    assert event_f1(its, calibrated_D[is_its_D] >= fitted.thresholds[class_id]) > best - 0.02


@pytest.mark.parametrize("differ", [False, True], ids=["alike", "differing"])
def test_classes_have_thresholds_of_their_own_where_they_differ(differ: bool) -> None:
    """Two classes of which the second's scores are as good, or say nothing above its first tenth."""
    rng = np.random.default_rng(3)
    detections, truth = [], []
    for number in range(1200):
        action_id, score = number % 2, rng.random()
        is_true = score > 0.55 if action_id == 0 or not differ else score > 0.1
        if rng.random() < 0.15:
            is_true = not is_true
        event = TimedAction(f"v{number // 40}", action_id, 10.0 * (number % 40), 10.0 * (number % 40) + 2, score)
        detections.append(event)
        truth += [event] if is_true else []
    calibration = fit_score_calibration(detections, truth, num_classes=2)
    raw_S, thresholds = np.linspace(0, 1, 1001), np.array(calibration.thresholds)
    first, second = (
        raw_S[np.searchsorted(calibration.calibrated(raw_S, np.full(1001, class_id)), thresholds[class_id])]
        for class_id in (0, 1)
    )
    assert first == pytest.approx(0.55, abs=0.06)
    assert second == pytest.approx(0.1 if differ else 0.55, abs=0.06)


def test_a_class_without_detections_or_truth_follows_its_body_part() -> None:
    drawn = draw_detections(seed=1, num_videos=50)
    part = [class_id for class_id, of in enumerate(BODY_PART_OF) if of == BODY_PART_OF[9]]
    without = [event for event in drawn.detections if event.action_id not in part[:2]]
    truth = [event for event in drawn.truth if event.action_id not in part[:3]]
    calibration = fit_score_calibration(without, truth)
    assert calibration.fractions[part[0]] == calibration.fractions[part[1]]
    assert calibration.thresholds[part[0]] == calibration.thresholds[part[1]]
    assert calibration.fractions[part[2]] < calibration.fractions[part[0]], "its detections are all false"


def test_nothing_to_fit_leaves_scores_as_they_are() -> None:
    truth = [TimedAction("a", 1, 0.0, 2.0)]
    detections = [TimedAction("a", 1, 5.0, 7.0, 0.25)]
    for calibration in (fit_score_calibration([], []), fit_score_calibration([], truth)):
        assert calibration.calibrated(np.array([0.0, 0.25, 1.0]), np.array([0, 1, 51])).tolist() == [0.0, 0.25, 1.0]
        assert set(calibration.thresholds) == {DEFAULT_THRESHOLD}
    false_alarm = fit_score_calibration(detections, [])
    assert (false_alarm.num_detections, false_alarm.num_matched) == (1, 0)
    assert false_alarm.calibrated(np.array([0.25]), np.array([1]))[0] < 0.25
    assert apply_calibration([], false_alarm) == []
    assert (detection_calibration_error([], truth), detection_bins([], truth)) == (0.0, [])


def test_the_error_is_the_mean_gap_of_score_and_truth() -> None:
    truth = [TimedAction("a", 1, 0.0, 2.0), TimedAction("a", 1, 5.0, 7.0)]
    times = ((0, 2, 0.95), (0, 2, 0.85), (5, 7, 0.25), (9, 10, 0.25))
    detections = [TimedAction("a", 1, start, end, score) for start, end, score in times]
    assert are_true(detections, truth, 0.5).tolist() == [True, False, True, False], "a duplicate is false"
    bins = detection_bins(detections, truth, num_bins=4)
    assert [(each.num_samples, each.accuracy) for each in bins] == [(2, 0.5), (2, 0.5)]
    assert detection_calibration_error(detections, truth, num_bins=4) == pytest.approx((0.25 + 0.4) / 2)
    assert Agreement(4, 2, 2).f1 == pytest.approx(2 / 3)


def test_scores_lie_on_lines_between_the_knots() -> None:
    calibration = ScoreCalibration.model_validate(LINEAR)
    assert ScoreCalibration.model_validate_json(calibration.model_dump_json()) == calibration
    found = calibration.calibrated(np.array([0.25, 0.75, 0.75], np.float32), np.array([0, 0, 1]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.1, 0.55, 0.25], rtol=1e-12)
    assert (found >= np.asarray(calibration.thresholds)[[0, 0, 1]]).tolist() == [False, True, True]
    for scores, classes, reason in (
        ([0.1, 1.5], [0, 0], r"scores from 0\.1 to 1\.5 must be in \[0, 1\]"),
        ([0.1, np.nan], [0, 0], r"must be in \[0, 1\]"),
        ([0.1], [2], r"classes 2\.\.2 must be in 0\.\.1"),
        ([0.1], [0, 1], r"must both be \[D\]"),
    ):
        with pytest.raises(ValueError, match=reason):
            calibration.calibrated(np.array(scores), np.array(classes))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"knots": (0.0, 0.5, 0.9)}, r"knots must rise strictly from 0 to 1, not \(0, 0\.5, 0\.9\)"),
        ({"knots": (0.0, 0.5, 0.5, 1.0)}, "knots must rise strictly"),
        ({"knots": (0.0, 1.0)}, "class 0: 3 fractions for 2 knots"),
        ({"fractions": ((0.0, 0.2, 0.9), (0.1, 0.1, 0.3))}, r"class 1: fractions must rise strictly within \[0, 1\]"),
        ({"fractions": ((0.0, 0.2, 0.9), (0.1, 0.2, 1.3))}, "class 1: fractions must rise strictly within"),
        ({"thresholds": (0.5,)}, "fractions of 2 classes and thresholds of 1 must be of the same classes"),
        ({"thresholds": (0.5, float("nan"))}, r"class 1: threshold \(nan\) must be in \[0, 1\]"),
        ({"num_matched": 1}, r"num_matched \(1\) is more than num_detections \(0\)"),
        ({"temperature": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_a_calibration_that_could_change_the_order_is_refused(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ScoreCalibration.model_validate(LINEAR | changed)


def test_scores_and_classes_that_have_no_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores from 1\.5 to 1\.5 must be in \[0, 1\]"):
        fit_score_calibration([TimedAction("a", 0, 0.0, 1.0, 1.5)], [])
    with pytest.raises(ValueError, match=r"actions 3\.\.3 must be in 0\.\.1"):
        fit_score_calibration([], [TimedAction("a", 3, 0.0, 1.0)], num_classes=2)


def test_a_calibration_is_read_without_torch() -> None:
    code = (
        "import sys, microaction.models.score_calibration; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
