"""MMA-52's own annotations: the metric's best score, and how far answers of one action a window can come."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from microaction.clips.instances import AnnotatedVideo, read_instances
from microaction.evaluation.detection import TimedAction, detection_map, truth_of
from microaction.evaluation.detection_run import DetectionEvaluation, run_detection_evaluation
from microaction.evaluation.detection_table import detections_table
from microaction.evaluation.seen_people import MMA52_NOTE
from microaction.evaluation.settings import EvaluateSettings
from microaction.labeling.events import EventRule, find_events
from microaction.taxonomy import ACTIONS
from microaction.video.windows import MICROSECONDS, Span, split_windows

RULE = EventRule(start_threshold=0.5, continue_threshold=0.5, max_gap_us=0, min_event_us=0)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def val_csv(shared: Path) -> str:
    path = shared / "data/mma52/val.csv"
    if not path.exists():
        pytest.skip("MMA-52's val.csv is missing, which is published under its own terms")
    return str(path)


@pytest.fixture(scope="module")
def videos(val_csv: str) -> list[AnnotatedVideo]:
    return read_instances(val_csv, "videos")


def one_action(overlap_WK: np.ndarray) -> np.ndarray:
    """What a perfect classifier of windows says: the action that fills most of each, if it fills half."""
    said_WK = np.zeros_like(overlap_WK)
    said_WK[np.arange(len(overlap_WK)), overlap_WK.argmax(axis=1)] = overlap_WK.max(axis=1) >= 0.5
    return said_WK


def every_action_of_half(overlap_WK: np.ndarray) -> np.ndarray:
    said_WK: np.ndarray = (overlap_WK >= 0.5).astype(float)
    return said_WK


def events_of(video: AnnotatedVideo, said: Callable[[np.ndarray], np.ndarray]) -> list[TimedAction]:
    """Return the events that perfect windows of 2 s, one a second, merge to."""
    assert video.duration_s is not None
    duration_us = round(video.duration_s * MICROSECONDS)
    windows = split_windows(duration_us, 2 * MICROSECONDS, MICROSECONDS, Span(0, duration_us))
    starts_W, ends_W = (np.array([getattr(window, name) for window in windows]) for name in ("start_us", "end_us"))
    overlap_WK = np.zeros((len(windows), len(ACTIONS)))
    for each in video.instances:
        shared_W = np.minimum(ends_W, each.end_s * MICROSECONDS) - np.maximum(starts_W, each.start_s * MICROSECONDS)
        overlap_WK[:, each.action_id] += np.maximum(shared_W, 0) / (ends_W - starts_W)
    return [
        TimedAction(video.name, event.action_id, event.start_us / 1e6, event.end_us / 1e6, event.probability)
        for event in find_events(starts_W, ends_W, said(overlap_WK), RULE)
    ]


def test_truth_is_right_but_for_the_metrics_own_rounding(videos: list[AnnotatedVideo]) -> None:
    assert (len(videos), sum(len(video.instances) for video in videos)) == (1475, 4735)
    truth = truth_of(videos)
    assert detection_map(truth, truth).mAP == 1.0
    assert detection_map(truth, truth, thresholds=(0.9999,)).mAP < 1.0, "0.0001 s is added to every union"


@pytest.mark.parametrize(("said", "low", "high"), [(one_action, 0.41, 0.43), (every_action_of_half, 0.77, 0.79)])
def test_windows_can_say_so_much_at_best(
    videos: list[AnnotatedVideo], said: Callable[[np.ndarray], np.ndarray], low: float, high: float
) -> None:
    found = [event for video in videos for event in events_of(video, said)]
    assert low < detection_map(found, truth_of(videos)).mAP < high


def evaluated(val_csv: str, folder: Path, found: Sequence[TimedAction]) -> DetectionEvaluation:
    """Measure detections as users do: from a table, against the list."""
    (folder / "found.parquet").write_bytes(detections_table(found))
    return run_detection_evaluation(
        EvaluateSettings(
            task="detection",
            detections=str(folder / "found.parquet"),
            clips_list=val_csv,
            videos=str(folder),
            out=str(folder / "out"),
        )
    )


def test_a_table_of_the_truth_is_right(val_csv: str, videos: list[AnnotatedVideo], tmp_path: Path) -> None:
    result = evaluated(val_csv, tmp_path, truth_of(videos))
    perfect = ("map_challenge", "map_all", "body_map_challenge", "event_f1@0.5", "mean_overlap")
    assert [result.metrics[name] for name in perfect] == pytest.approx([1.0] * len(perfect), abs=1e-9)
    assert (result.metrics["num_true"], result.metrics["classes_without_truth"]) == (4735, 0)
    assert MMA52_NOTE in result.seen
    saved = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (saved["num_videos"], round(saved["hours"], 2)) == (1475, 4.38)


def test_tables_of_windows_say_so_much_at_best(val_csv: str, videos: list[AnnotatedVideo], tmp_path: Path) -> None:
    found = [event for video in videos for event in events_of(video, one_action)]
    result = evaluated(val_csv, tmp_path, found)
    assert 0.41 < result.metrics["map_challenge"] < 0.43
    assert result.metrics["map_challenge"] == detection_map(found, truth_of(videos)).mAP
