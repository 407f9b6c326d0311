"""One evaluation of detections in untrimmed videos: a list of instances in, a folder of metrics and plots out."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.clips.instances import AnnotatedVideo, read_instances
from microaction.clips.rows import located
from microaction.errors import UsageError
from microaction.evaluation.detection import TimedAction, truth_of
from microaction.evaluation.detection_calibration import apply_calibration
from microaction.evaluation.detection_report import write_detection_report
from microaction.evaluation.detection_submission import write_detection_submission
from microaction.evaluation.detection_table import DetectionTableError, read_detections
from microaction.evaluation.seen_people import whom_seen
from microaction.evaluation.settings import EvaluateSettings
from microaction.models import load_checkpoint
from microaction.models.checkpoint import check_labels
from microaction.models.score_calibration import ScoreCalibration
from microaction.registry import resolve
from microaction.schema import CLIPS_FILE
from microaction.taxonomy import ACTIONS

OnProgress = Callable[[tuple[int, int]], None]


@dataclass(frozen=True)
class DetectionEvaluation:
    """What an evaluation found: metrics by name, what users should know, and which people the weights were trained on; the
    thresholds from which on detections are events, and the videos that could not be read, by URI."""

    metrics: dict[str, float]
    notices: tuple[str, ...]
    seen: str
    thresholds: tuple[float, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundDetections:
    """Detections in listed videos, with scores as the detector gives them, and what is known of the detector."""

    detections: list[TimedAction]
    calibration: ScoreCalibration | None = None
    checkpoint_digest: str | None = None
    trained_subjects: Collection[str] | None = None
    notices: tuple[str, ...] = ()
    unreadable: Collection[str] = ()


def run_detection_evaluation(
    settings: EvaluateSettings, *, on_progress: OnProgress = lambda progress: None
) -> DetectionEvaluation:
    """Measure a detector, or a table of detections, and write the report into `settings.out`.

    Needs a running Ray only for a detector. `on_progress` is called with (videos done, all videos). Raises `ManifestError`,
    `DetectionTableError`, and `UsageError` for detections that cannot be submitted.
    """
    videos = read_instances(settings.clips_list, settings.videos)
    for location in (storage.join(settings.out, "metrics.json"), settings.submission):
        if location is not None:
            storage.check_writable(location)
    if settings.detections is not None:
        found = _detections_of_table(settings.detections, videos, settings.videos)
    else:
        found = _detections_of_model(settings, videos, on_progress)
    if settings.submission is not None:
        calibration = found.calibration
        submitted = found.detections if calibration is None else apply_calibration(found.detections, calibration)
        try:
            write_detection_submission(settings.submission, submitted)
        except ValueError as error:
            raise UsageError(f"{settings.submission}: {error}") from error
    is_mma52 = not settings.clips_list.endswith(".parquet")
    seen = whom_seen(found.trained_subjects, {video.subject for video in videos}, is_mma52=is_mma52)
    videos = [video for video in videos if video.uri not in found.unreadable]
    metrics = write_detection_report(
        settings.out,
        found.detections,
        truth_of(videos),
        durations_s={video.name: video.duration_s for video in videos},
        calibration=found.calibration,
        checkpoint_digest=found.checkpoint_digest,
        seen=seen,
    )
    thresholds = (0.0,) * len(ACTIONS) if found.calibration is None else found.calibration.thresholds
    return DetectionEvaluation(metrics, found.notices, seen, thresholds, tuple(found.unreadable))


def _detections_of_model(
    settings: EvaluateSettings, videos: Sequence[AnnotatedVideo], on_progress: OnProgress
) -> FoundDetections:
    """Run a detector on the videos, on the cluster. Raises `DecodeError` for more unreadable videos than may be."""
    from microaction.evaluation.detecting import detect_on_cluster

    assert settings.model is not None, "settings have a model or detections"
    checkpoint = load_checkpoint(resolve(settings.model))
    check_labels(checkpoint.config, ACTIONS, settings.model)
    if checkpoint.config.task != "detection":
        raise UsageError(f"{settings.model} classifies clips: leave out --task, or give a detector")
    max_unreadable = int(settings.max_unreadable_fraction * len(videos))
    detections, unreadable = detect_on_cluster(checkpoint.ref, videos, settings, max_unreadable, on_progress)
    notices = [*checkpoint.notices, *(f"{uri} is left out: {reason}" for uri, reason in unreadable.items())]
    return FoundDetections(
        detections,
        checkpoint.config.score_calibration,
        checkpoint.digest,
        _trained_subjects(settings.model),
        tuple(notices),
        frozenset(unreadable),
    )


def _trained_subjects(model: str) -> set[str] | None:
    """Return the people whose videos a checkpoint was trained on; None if it does not say."""
    try:
        data = storage.read_bytes(storage.join(resolve(model).uri, CLIPS_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    subjects = {row["subject"] for row in rows if row["split"] == "train"}
    return None if None in subjects else subjects


def _detections_of_table(uri: str, videos: Sequence[AnnotatedVideo], folder: str) -> FoundDetections:
    """Return the detections in listed videos. The others are left out, and a notice says how many.

    Videos are the same if their names are, relative to `folder`, with or without the suffix of the listed one. Raises
    `DetectionTableError` if the table has detections, and none in a listed video.
    """
    detections = read_detections(uri)
    listed = {video.name for video in videos}
    num_of_stem = Counter(_stem(name) for name in listed)
    name_of = {_stem(name): name for name in listed if num_of_stem[_stem(name)] == 1} | {name: name for name in listed}
    name_in = {name: name_of.get(located(name, None, folder)[0]) for name in {event.video for event in detections}}
    kept = [event._replace(video=name) for event in detections if (name := name_in[event.video]) is not None]
    unlisted = sorted(name for name, listed_name in name_in.items() if listed_name is None)
    if detections and not kept:
        raise DetectionTableError(
            f"{uri}: no video that it names, such as {unlisted[0]}, is on the list, which has {videos[0].name}; names must agree"
        )
    notices = ["it has no calibration, so that every detection counts as an event"]
    if unlisted:
        notices.append(
            f"{len(detections) - len(kept)} of {len(detections)} detections are in videos that are not on the list, such as "
            f"{unlisted[0]}, and are left out"
        )
    return FoundDetections(kept, notices=tuple(notices))


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)
