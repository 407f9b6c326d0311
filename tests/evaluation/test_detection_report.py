"""The files of an evaluation of detections: that they agree with each other, and with the metric."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from microaction.evaluation.detection import TimedAction, as_body_parts, detection_map, match_events
from microaction.evaluation.detection_calibration import (
    apply_calibration,
    detection_calibration_error,
    fit_score_calibration,
)
from microaction.evaluation.detection_report import write_detection_report
from microaction.evaluation.detection_table import read_detections
from microaction.evaluation.seen_people import MMA52_NOTE, whom_seen
from microaction.taxonomy import ACTIONS
from tests.evaluation.drawn_detections import draw_detections

PLOTS = ("per_class", "precision_recall", "calibration", "map")


def test_the_files_agree_with_each_other(tmp_path: Path) -> None:
    held_out, drawn = draw_detections(1, 100), draw_detections(2, 20)
    calibration = fit_score_calibration(*held_out[:2])
    durations_s: dict[str, float | None] = {f"v{i}": 400.0 for i in range(20)}
    metrics = write_detection_report(
        str(tmp_path),
        drawn.detections,
        drawn.truth,
        durations_s=durations_s,
        calibration=calibration,
        checkpoint_digest="abc",
        seen="nobody",
    )

    saved = json.loads((tmp_path / "metrics.json").read_text())
    described = {"num_videos": 20, "hours": pytest.approx(8000 / 3600), "model_digest": "abc", "seen_people": "nobody"}
    assert saved == described | metrics
    assert metrics["map_challenge"] == detection_map(drawn.detections, drawn.truth).mAP
    calibrated = apply_calibration(drawn.detections, calibration)
    assert read_detections(str(tmp_path / "detections.parquet")) == calibrated
    names = pq.read_schema(tmp_path / "detections.parquet").names
    assert names == ["video", "action_id", "action", "start_s", "end_s", "score"]
    parts = detection_map(as_body_parts(calibrated), as_body_parts(drawn.truth), num_classes=7)
    assert metrics["body_map_challenge"] == pytest.approx(parts.mAP)
    assert metrics["calibration_error"] == detection_calibration_error(calibrated, drawn.truth)

    with open(tmp_path / "per_class.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["action"] for row in rows] == list(ACTIONS)
    assert sum(int(row["num_true"]) for row in rows) == metrics["num_true"] == len(drawn.truth)
    assert sum(int(row["num_found"]) for row in rows) == metrics["num_events"]
    assert [float(row["threshold"]) for row in rows] == pytest.approx(calibration.thresholds, abs=1e-4)
    for threshold in (0.2, 0.5, 0.7):
        column = [float(row[f"ap@{threshold}"]) for row in rows if row[f"ap@{threshold}"]]
        assert np.mean(column) == pytest.approx(metrics[f"map@{threshold}"], abs=1e-4)
    events = [event for event in calibrated if event.score >= calibration.thresholds[event.action_id]]
    agreement = match_events(events, drawn.truth, 0.5)
    assert agreement.num_found == metrics["num_events"] > 0
    assert (agreement.f1, agreement.precision, agreement.recall) == tuple(
        metrics[f"event_{name}@0.5"] for name in ("f1", "precision", "recall")
    )
    assert metrics["mean_overlap"] == pytest.approx(2 / 2.2), "each true detection lasts 2 of 2.2 s"
    for plot in PLOTS:
        assert (tmp_path / f"{plot}.svg").read_bytes().startswith(b"<?xml")


def test_classes_without_truth_are_counted_and_left_out(tmp_path: Path) -> None:
    truth = [TimedAction("a", 5, 0.0, 2.0)]
    detections = [TimedAction("a", 5, 0.0, 2.0, 0.9), TimedAction("a", 6, 0.0, 2.0, 0.9)]
    durations_s = {"a": None}
    metrics = write_detection_report(str(tmp_path), detections, truth, durations_s=durations_s, seen="?")
    assert (metrics["classes_without_truth"], metrics["num_detections"], metrics["num_events"]) == (51, 2, 2)
    assert metrics["map_challenge"] == pytest.approx(1 / 51), "class 6 is left out; 50 have neither, and count as 0"
    assert metrics["map_challenge_of_true_classes"] == 1.0
    rows = list(csv.DictReader((tmp_path / "per_class.csv").open()))
    assert (rows[5]["ap"], rows[6]["ap"], rows[7]["ap"]) == ("1.0000", "", "0.0000")
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert (saved["hours"], saved["model_digest"]) == (None, None)


@pytest.mark.parametrize("num_true", [0, 1])
def test_no_detections_make_a_report_too(tmp_path: Path, num_true: int) -> None:
    truth = [TimedAction("a", 5, 0.0, 2.0)] * num_true
    metrics = write_detection_report(str(tmp_path), [], truth, durations_s={"a": 9.0}, seen="?")
    found = ("map_challenge", "event_f1@0.5", "mean_overlap", "calibration_error", "num_events")
    assert [metrics[name] for name in found] == [0, 0, 0, 0, 0]
    assert math.isnan(metrics["map_challenge_of_true_classes"]) == (num_true == 0)
    saved = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert (saved["map_challenge_of_true_classes"] is None) == (num_true == 0)
    assert read_detections(str(tmp_path / "detections.parquet")) == []
    for plot in PLOTS:
        assert (tmp_path / f"{plot}.svg").exists()


def test_it_says_whom_the_weights_have_seen() -> None:
    assert whom_seen({"1", "2"}, {"3", "4"}) == "none of the 2 people evaluated was trained on"
    assert whom_seen({"0196", "2"}, {"196", "3"}) == "1 of the 2 people evaluated were trained on"
    assert whom_seen({"ann"}, {"ann", "bob", None}) == (
        "1 of the 2 people known among those evaluated were trained on; of some videos nobody knows who is in them"
    )
    assert whom_seen(None, {"3"}) == "unknown: the weights do not say whom they were trained on"
    assert whom_seen({"1"}, {None}) == "unknown: the list does not say who is in the videos"
    assert whom_seen({"1"}, {"2"}, is_mma52=True) == f"none of the 1 people evaluated was trained on; {MMA52_NOTE}"
