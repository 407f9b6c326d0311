"""Files of an evaluation of detections: metrics, per-class table, detections and plots.

Shapes: D detections, K classes, T thresholds of the temporal IoU.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microaction import storage
from microaction.evaluation.calibration import binned, mean_gap
from microaction.evaluation.detection import (
    ALL_THRESHOLDS,
    CHALLENGE_THRESHOLDS,
    Agreement,
    DetectionMAP,
    TimedAction,
    are_true,
    as_body_parts,
    detection_map,
    matched_pairs,
    temporal_iou,
)
from microaction.evaluation.detection_calibration import MIN_IOU, apply_calibration
from microaction.evaluation.detection_plots import map_plot, precision_recall_plot
from microaction.evaluation.detection_table import detections_table
from microaction.evaluation.plots import action_bars, reliability_plot
from microaction.models.score_calibration import ScoreCalibration
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

CHALLENGE_T = [ALL_THRESHOLDS.index(threshold) for threshold in CHALLENGE_THRESHOLDS]


@dataclass(frozen=True)
class DetectionMeasurement:
    """How detections, calibrated if they can be, agree with the truth.

    `actions` and `body_parts` are average precisions at `ALL_THRESHOLDS`. `is_true_D` says which detections are true at an
    overlap of 0.5, as the metric matches them. Events are detections that reach their class's working threshold; `events_K` is
    how those of each class agree with the truth as `match_events` has it, and `overlaps` how much those that do.
    """

    score_D: np.ndarray
    is_true_D: np.ndarray
    is_event_D: np.ndarray
    actions: DetectionMAP
    body_parts: DetectionMAP
    events_K: tuple[Agreement, ...]
    overlaps: tuple[float, ...]

    @property
    def events(self) -> Agreement:
        """The agreement of all classes' events together."""
        return Agreement(*(sum(counts) for counts in zip(*map(_counts, self.events_K), strict=True)))

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by name. Means over classes are over all of them, but for those that are found and never true."""
        map_T, body_map_T, events = self.actions.map_T, self.body_parts.map_T, self.events
        has_truth_K = np.array([each.num_true > 0 for each in self.events_K])
        ap_of_true = self.actions.ap_CT[has_truth_K][:, CHALLENGE_T]
        bins, event_bins = (binned(self.score_D[mask], self.is_true_D[mask]) for mask in (..., self.is_event_D))
        return {
            "map_challenge": float(map_T[CHALLENGE_T].mean()),
            "map_all": float(map_T.mean()),
            **{f"map@{ALL_THRESHOLDS[index]}": float(map_T[index]) for index in CHALLENGE_T},
            "map_challenge_of_true_classes": float(ap_of_true.mean()) if ap_of_true.size else math.nan,
            "body_map_challenge": float(body_map_T[CHALLENGE_T].mean()),
            f"event_f1@{MIN_IOU}": events.f1,
            f"event_precision@{MIN_IOU}": events.precision,
            f"event_recall@{MIN_IOU}": events.recall,
            "mean_overlap": float(np.mean(self.overlaps)) if self.overlaps else 0.0,
            "calibration_error": mean_gap(bins),
            "event_calibration_error": mean_gap(event_bins),
            "num_true": float(events.num_true),
            "num_detections": float(len(self.score_D)),
            "num_events": float(events.num_found),
            "classes_without_truth": float((~has_truth_K).sum()),
        }


def measure_detections(
    detections: Sequence[TimedAction], truth: Sequence[TimedAction], threshold_K: Sequence[float]
) -> DetectionMeasurement:
    """Measure detections with calibrated scores; `threshold_K` are the working thresholds. Raises as `detection_map`."""
    num_classes = len(threshold_K)
    events = [event for event in detections if event.score >= threshold_K[event.action_id]]
    pairs = matched_pairs(events, truth, MIN_IOU)
    num_true, num_found, num_matched = (
        Counter(event.action_id for event in each) for each in (truth, events, [found for found, _ in pairs])
    )
    return DetectionMeasurement(
        score_D=np.array([event.score for event in detections], np.float64),
        is_true_D=are_true(detections, truth, MIN_IOU),
        is_event_D=np.array([event.score >= threshold_K[event.action_id] for event in detections], bool),
        actions=detection_map(detections, truth, num_classes=num_classes, thresholds=ALL_THRESHOLDS),
        body_parts=detection_map(
            as_body_parts(detections),
            as_body_parts(truth),
            num_classes=len(BODY_PARTS),
            thresholds=ALL_THRESHOLDS,
        ),
        events_K=tuple(Agreement(num_true[k], num_found[k], num_matched[k]) for k in range(num_classes)),
        overlaps=tuple(temporal_iou(*pair) for pair in pairs),
    )


def write_detection_report(
    out: str,
    detections: Sequence[TimedAction],
    truth: Sequence[TimedAction],
    *,
    durations_s: Mapping[str, float | None],
    calibration: ScoreCalibration | None = None,
    labels: Sequence[str] = ACTIONS,
    checkpoint_digest: str | None = None,
    seen: str,
) -> dict[str, float]:
    """Write metrics.json, per_class.csv, detections.parquet and four plots into `out`; return the metrics.

    `durations_s` are the lengths of all videos by name, None where unknown. Scores of `detections` are as the detector gives
    them; `calibration` turns them into probabilities and says which are events. Without it every detection is an event.
    `checkpoint_digest` is None for detections of unknown origin; `seen` says which people the weights were trained on (see
    `whom_seen`). In metrics.json what cannot be computed is null. Raises as `detection_map` and `ScoreCalibration.calibrated`.
    """
    detections = list(detections) if calibration is None else apply_calibration(detections, calibration)
    threshold_K = (0.0,) * len(labels) if calibration is None else calibration.thresholds
    measured = measure_detections(detections, truth, threshold_K)
    hours = None if None in durations_s.values() else sum(filter(None, durations_s.values())) / 3600
    summary = {"num_videos": len(durations_s), "hours": hours, "model_digest": checkpoint_digest, "seen_people": seen}
    metrics = measured.metrics
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    files = {
        "metrics.json": json.dumps(summary | finite, indent=2).encode() + b"\n",
        "per_class.csv": per_class_csv(measured, threshold_K, labels).encode(),
        "detections.parquet": detections_table(detections, labels),
        **detection_plots(measured, labels, is_calibrated=calibration is not None),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(out, name), content)
    return metrics


def detection_plots(measured: DetectionMeasurement, labels: Sequence[str], *, is_calibrated: bool) -> dict[str, bytes]:
    """Return the plots of a report by file name."""
    num_true_K = [each.num_true for each in measured.events_K]
    ap_K = measured.actions.ap_CT[:, CHALLENGE_T].mean(axis=1)
    return {
        "per_class.svg": action_bars(
            ap_K.tolist(),
            num_true_K,
            labels,
            xlabel="average precision, mean at temporal IoUs of 0.2, 0.5 and 0.7",
            title="Average precision per action (true instances)",
        ),
        "precision_recall.svg": precision_recall_plot(
            measured.score_D, measured.is_true_D, sum(num_true_K), measured.events
        ),
        "calibration.svg": reliability_plot(
            binned(measured.score_D, measured.is_true_D),
            samples="detections",
            confidence="calibrated score" if is_calibrated else "score",
            accuracy="fraction that is true",
            is_log=True,
        ),
        "map.svg": map_plot(ALL_THRESHOLDS, measured.actions.map_T, measured.body_parts.map_T),
    }


def per_class_csv(measured: DetectionMeasurement, threshold_K: Sequence[float], labels: Sequence[str]) -> str:
    """Return a CSV with a line per action: true instances and events, average precisions (empty if it is found and never true),
    and precision, recall and F1 of its events at its working threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["action_id", "action", "body_part", "num_true", "num_found"]
    header += [
        *(f"ap@{threshold}" for threshold in CHALLENGE_THRESHOLDS),
        "ap",
        "precision",
        "recall",
        "f1",
        "threshold",
    ]
    writer.writerow(header)
    for action_id, events in enumerate(measured.events_K):
        ap_T = measured.actions.ap_CT[action_id, CHALLENGE_T]
        numbers = [*ap_T, ap_T.mean(), events.precision, events.recall, events.f1, threshold_K[action_id]]
        row = [action_id, labels[action_id], BODY_PARTS[BODY_PART_OF[action_id]], events.num_true, events.num_found]
        writer.writerow([*row, *("" if math.isnan(number) else f"{number:.4f}" for number in numbers)])
    return text.getvalue()


def _counts(agreement: Agreement) -> tuple[int, int, int]:
    return agreement.num_true, agreement.num_found, agreement.num_matched
