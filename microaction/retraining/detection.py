"""Retraining of detectors: their lists, and what decides between candidate and production.

Shapes: D detections.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from microaction import storage
from microaction.clips.instances import read_instances
from microaction.clips.manifest import Clip, ManifestError
from microaction.clips.rows import SpanName
from microaction.distributed.settings import CLUSTER_FIELDS
from microaction.evaluation.detection import TimedAction, truth_of
from microaction.evaluation.detection_report import CHALLENGE_T, DetectionMeasurement, measure_detections
from microaction.evaluation.detection_run import run_detection_evaluation
from microaction.evaluation.detection_table import read_detections
from microaction.evaluation.settings import EvaluateSettings
from microaction.models import load_checkpoint
from microaction.models.classifier import preferred_precision
from microaction.models.detector import DetectionHead, DetectionInputs, DetectionNetwork, FeatureExtractor
from microaction.models.golden import golden_frames
from microaction.models.normalize import normalize_frames
from microaction.retraining.attempt import Attempt
from microaction.retraining.data import VIDEOS_FOLDER
from microaction.retraining.gates import Verdict
from microaction.retraining.page import ComparedAction, ComparedModels
from microaction.retraining.settings import GatesConfig
from microaction.schema import INSTANCE_LIST, REGION_COLUMNS, parquet_bytes
from microaction.taxonomy import ACTIONS

FRAMES_PER_BATCH = 16


@dataclass(frozen=True)
class DetectorComparison:
    """Candidate and production on the same held-out videos, and how many were left out because one could not read them."""

    candidate: DetectionMeasurement
    production: DetectionMeasurement
    num_left_out: int = 0


def instance_file(clips: Sequence[Clip]) -> bytes:
    """Return a list of instances of clips that are spans. Raises `ManifestError` for one that is a whole file."""
    rows = []
    for clip in clips:
        name = SpanName.parse(clip.name)
        if name is None:
            raise ManifestError(f"{clip.name} is no span of a video: a detector is retrained on lists of spans")
        rows.append(
            {
                "video": name.video,
                "uri": clip.uri,
                "start_s": name.span.start_s,
                "end_s": name.span.end_s,
                "action": ACTIONS[clip.label],
                "action_id": clip.label,
                "person": clip.person,
                "subject": clip.subject,
            }
            | (dict(zip(REGION_COLUMNS, clip.region, strict=True)) if clip.region else {})
        )
    schema = INSTANCE_LIST.append(pa.field("uri", pa.string()))
    return parquet_bytes(pa.Table.from_pylist(rows, schema=schema))


def compare_detectors(
    attempt: Attempt, judged: Sequence[Clip], on_evaluation: Callable[[tuple[int, int]], None]
) -> DetectorComparison:
    """Evaluate both models on the held-out videos; what either cannot read is left out."""
    settings = attempt.settings
    storage.write_bytes(attempt.held_out_uri, instance_file(judged))
    production = f"{settings.registry}@{attempt.production.name}"
    found: list[list[TimedAction]] = []
    unreadable: set[str] = set()
    thresholds = []
    for model, name in ((attempt.candidate_uri, "candidate"), (production, "production")):
        out = storage.join(attempt.folder, name)
        evaluation = run_detection_evaluation(
            EvaluateSettings(
                task="detection",
                model=model,
                clips_list=attempt.held_out_uri,
                videos=storage.join(settings.dataset, VIDEOS_FOLDER),
                out=out,
                max_unreadable_fraction=settings.max_unreadable_fraction,
                **settings.model_dump(include=set(CLUSTER_FIELDS)),
            ),
            on_progress=on_evaluation,
        )
        unreadable |= set(evaluation.unreadable)
        thresholds.append(evaluation.thresholds)
        found.append(read_detections(storage.join(out, "detections.parquet")))
    videos = read_instances(attempt.held_out_uri, storage.join(settings.dataset, VIDEOS_FOLDER))
    read = [video for video in videos if video.uri not in unreadable]
    names = {video.name for video in read}
    measured = [
        measure_detections([each for each in detections if each.video in names], truth_of(read), threshold_K)
        for detections, threshold_K in zip(found, thresholds, strict=True)
    ]
    candidate_measured, production_measured = measured
    return DetectorComparison(candidate_measured, production_measured, len(videos) - len(read))


def judge_detectors(comparison: DetectorComparison, golden_difference: float, gates: GatesConfig) -> list[Verdict]:
    """Return the verdicts of all gates; `golden_difference` is that of `detector_parity`."""
    ours, theirs = comparison.candidate.metrics, comparison.production.metrics
    # Over the actions that occur: the others count as 0 for both.
    name = "map_challenge_of_true_classes"
    verdicts = [
        Verdict("held-out instances", ours["num_true"], None, gates.min_held_out, True),
        Verdict("mAP", ours[name], theirs[name], theirs[name] + gates.map_margin, True),
        Verdict(
            "calibration error",
            ours["event_calibration_error"],
            theirs["event_calibration_error"],
            theirs["event_calibration_error"] + gates.calibration_margin,
            False,
        ),
        Verdict("golden output, as labeling runs the network", golden_difference, None, gates.golden_margin, False),
    ]
    return verdicts + [
        Verdict(
            f"average precision of {row.action}",
            row.candidate,
            row.production,
            row.production - gates.class_ap_margin,
            True,
        )
        for row in compared_actions(comparison)
        if row.support >= gates.min_support
    ]


def compared_actions(comparison: DetectorComparison) -> list[ComparedAction]:
    """Return the average precision of every action, over the challenge's overlaps; 0 where it is found and never true."""
    ours_K, theirs_K = (
        each.actions.ap_CT[:, CHALLENGE_T].mean(axis=1) for each in (comparison.candidate, comparison.production)
    )
    return [
        ComparedAction(
            label,
            agreement.num_true,
            *(0.0 if math.isnan(value) else float(value) for value in (ours_K[label], theirs_K[label])),
        )
        for label, agreement in enumerate(comparison.candidate.events_K)
    ]


def compared_detectors(comparison: DetectorComparison) -> ComparedModels:
    """Return what the page shows."""
    return ComparedModels(
        unit="instances",
        num_judged=int(comparison.candidate.metrics["num_true"]),
        num_left_out=comparison.num_left_out,
        metrics=[comparison.candidate.metrics, comparison.production.metrics],
        score="Average precision",
        actions=compared_actions(comparison),
    )


@torch.inference_mode()
def detector_parity(model_uri: str, device: str) -> float:
    """Return the largest difference of the golden input's dense probabilities between the network as it was trained, in float32
    on the CPU, and as labeling runs it on `device`: its backbone in the precision that the device prefers, its rest on what
    is stored."""
    checkpoint = load_checkpoint(model_uri)
    model, preprocessing = checkpoint.model, checkpoint.config.preprocessing
    assert isinstance(model, DetectionNetwork)
    frames_BTHWC = golden_frames(checkpoint.config)
    T = frames_BTHWC.shape[1]
    outputs = model(DetectionInputs((T,), frames_BTCHW=normalize_frames(frames_BTHWC, preprocessing)))
    expected_TK = outputs.dense[0, :T].sigmoid()
    head = DetectionHead(model.detector, model.config)
    dtype = torch.bfloat16 if preferred_precision(device) == "bf16" else torch.float32
    extractor = FeatureExtractor(model.to(device), preprocessing, dtype, FRAMES_PER_BATCH)
    _, found_TK = head(extractor(frames_BTHWC[0], torch.arange(T), 0, range(T), T).numpy())
    return float((torch.from_numpy(found_TK) - expected_TK).abs().max())
