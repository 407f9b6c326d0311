"""Average precision of detections: as the official code of MMA-52 has it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microaction.evaluation.detection import (
    ALL_THRESHOLDS,
    TimedAction,
    as_body_parts,
    detection_map,
)

CASES = (
    "random",
    "no detections at all",
    "class without truth, none found",
    "perfect",
    "second best truth",
    "equal scores",
    "all scores equal to 0",
    "zero-length truth",
    "unknown videos",
    "very short",
    "same segment, other class",
)


def events(case: dict[str, Any]) -> tuple[list[TimedAction], list[TimedAction]]:
    return [TimedAction(*row) for row in case["detections"]], [TimedAction(*row) for row in case["ground_truth"]]


@pytest.mark.parametrize("name", CASES)
def test_it_equals_the_official_code(name: str, shared: Path) -> None:
    recorded = json.loads((shared / "data/parity/mma52_map_parity.json").read_text())
    case = next(case for case in recorded["cases"] if case["name"] == name)
    found, truth = events(case)
    num_classes = case["num_classes"]
    result = detection_map(found, truth, num_classes=num_classes, thresholds=ALL_THRESHOLDS)
    expected = np.zeros((num_classes, len(ALL_THRESHOLDS)))
    for action_id, row in case["ap"].items():
        expected[int(action_id)] = [math.nan if value is None else value for value in row]
    np.testing.assert_allclose(result.ap_CT, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.map_T, case["map_by_tiou"], rtol=0, atol=1e-9)
    assert result.mAP == pytest.approx(case["mean_01_to_09"], abs=1e-9)
    assert detection_map(found, truth, num_classes=num_classes).mAP == pytest.approx(case["mean_02_05_07"], abs=1e-9)
    if "body_parts" in case:
        parts = detection_map(as_body_parts(found), as_body_parts(truth), num_classes=7)
        assert parts.mAP == pytest.approx(case["body_parts"]["mean_02_05_07"], abs=1e-9)


def test_a_duplicate_takes_the_next_best_and_what_is_left_is_false() -> None:
    truth = [TimedAction("a", 0, 0.0, 2.0), TimedAction("a", 0, 1.0, 3.0)]
    found = [TimedAction("a", 0, 0.0, 2.0, 0.9), TimedAction("a", 0, 0.1, 2.0, 0.8), TimedAction("a", 0, 0.0, 2.0, 0.7)]
    result = detection_map(found, truth, num_classes=1, thresholds=(0.2, 0.7))
    np.testing.assert_allclose(result.ap_CT, [[1.0, 0.5]])


def test_a_class_that_is_never_true_is_left_out_and_named() -> None:
    truth = [TimedAction("a", 0, 0.0, 2.0)]
    found = [TimedAction("a", 0, 0.0, 2.0, 0.9), TimedAction("a", 1, 0.0, 2.0, 0.9)]
    result = detection_map(found, truth, num_classes=2)
    assert result.left_out == (1,)
    assert result.mAP == 1.0
    assert np.isnan(result.ap_CT[1]).all()
    nothing = detection_map(found[1:], [], num_classes=2)
    assert nothing.mAP == 0.0, "the other class has neither, which counts as 0"


def test_half_an_overlap_is_less_than_half() -> None:
    """The official code adds 0.0001 s to every union."""
    truth, found = [TimedAction("a", 0, 0.0, 2.0)], [TimedAction("a", 0, 0.0, 1.0, 1.0)]
    assert detection_map(found, truth, num_classes=1, thresholds=(0.5,)).mAP == 0
    assert detection_map(found, truth, num_classes=1, thresholds=(0.4999,)).mAP == 1


@pytest.mark.parametrize(
    ("event", "thresholds", "reason"),
    [
        (TimedAction("a", 52, 0.0, 1.0), (0.5,), r"action 52 must be in 0\.\.51"),
        (TimedAction("a", 0, 0.0, math.nan), (0.5,), "must be finite"),
        (TimedAction("a", 0, 0.0, 1.0), (0.0,), r"threshold \(0\.0\) must be in \(0, 1\]"),
    ],
)
def test_what_has_no_meaning_is_refused(event: TimedAction, thresholds: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        detection_map([event], [], thresholds=thresholds)
