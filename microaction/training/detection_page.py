"""A detector's run as one page: what was trained, on what, how it went and how good it is. The page needs no other file."""

import math

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.evaluation.detection import CHALLENGE_THRESHOLDS, TimedAction, truth_of
from microaction.evaluation.detection_calibration import apply_calibration
from microaction.evaluation.detection_report import CHALLENGE_T, detection_plots, measure_detections
from microaction.evaluation.seen_people import whom_seen
from microaction.models.checkpoint import read_config
from microaction.pages import render
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.training.report import (
    CURVES_FILE,
    REPORT_FILE,
    TEMPLATES,
    curves_plot,
    embedded,
    flat,
    num_shared_subjects,
    summary_of,
)
from microaction.training.settings import TrainSettings
from microaction.training.split import read_instance_splits, read_video_splits
from microaction.training.state import RunState
from microaction.versions import versions

SCORES = ("map_challenge", "event_f1@0.5", "event_recall@0.5", "body_map_challenge")


def write_detection_page(
    settings: TrainSettings, run_uri: str, state: RunState, detections: bytes, best_uri: str
) -> str:
    """Write report.html and its plots into the run's folder; return the page's URI.

    `detections` is the best epoch's table of detections in the validation videos, and `best_uri` its checkpoint.
    """
    rows = pq.read_table(pa.BufferReader(detections)).to_pylist()
    found = [TimedAction(row["video"], row["action_id"], row["start_s"], row["end_s"], row["score"]) for row in rows]
    train, held_out = read_video_splits(settings)
    calibration = read_config(best_uri).score_calibration
    assert calibration is not None, "training calibrates every checkpoint"
    truth = truth_of(video for video in held_out if video.uri not in state.unreadable)
    measured = measure_detections(apply_calibration(found, calibration), truth, calibration.thresholds)
    plots = {
        CURVES_FILE: curves_plot(state.losses.numpy(), state.epochs, SCORES),
        **detection_plots(measured, ACTIONS, is_calibrated=True),
    }
    for name, plot in plots.items():
        storage.write_bytes(storage.join(run_uri, name), plot)
    splits = read_instance_splits(settings)
    trained, tested = ({clip.subject for clip in clips} for clips in splits)
    page = render(
        TEMPLATES,
        "detection_page.html.j2",
        name=settings.name,
        best=next(epoch for epoch in state.epochs if epoch.number == state.best_epoch),
        epochs=state.epochs,
        num_steps=len(state.losses),
        splits=[
            (summary_of(name, clips), len(videos))
            for name, clips, videos in zip(("training", "validation"), splits, (train, held_out), strict=True)
        ],
        num_shared_subjects=num_shared_subjects(*splits),
        seen=whom_seen(
            None if None in trained else {subject for subject in trained if subject is not None},
            tested,
            is_mma52=not settings.train_list.endswith(".parquet"),
        ),
        thresholds=CHALLENGE_THRESHOLDS,
        per_class=[
            {
                "action": action,
                "body_part": BODY_PARTS[BODY_PART_OF[label]],
                "ap": [_percent(value) for value in measured.actions.ap_CT[label, CHALLENGE_T]],
                "threshold": calibration.thresholds[label],
                "events": measured.events_K[label],
            }
            for label, action in enumerate(ACTIONS)
        ],
        unreadable=state.unreadable,
        settings=flat(settings.model_dump(mode="json", exclude={"config"})),
        versions=versions(),
        plots=embedded(plots),
    )
    uri = storage.join(run_uri, REPORT_FILE)
    storage.write_bytes(uri, page)
    return uri


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"
