"""Which detections are events. Knows no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from microaction.labeling.settings import VideoLabelSettings
from microaction.models.score_calibration import ScoreCalibration
from microaction.video.windows import microseconds

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig

UNCALIBRATED_MIN_SCORE = 0.5  # of a checkpoint without working thresholds


@dataclass(frozen=True)
class DetectionRule:
    """Which detections are events: those of at least the action's threshold, on calibrated scores.

    Events of an action at most `max_gap_us` apart are joined; those that are then shorter than `min_event_us` are dropped.
    """

    calibration: ScoreCalibration | None
    thresholds: tuple[float, ...]
    max_gap_us: int
    min_event_us: int

    @classmethod
    def of(cls, settings: VideoLabelSettings, config: "CheckpointConfig") -> Self:
        """Return the rule that settings describe: without a `min_score`, the thresholds are the checkpoint's working ones."""
        calibration = config.score_calibration
        num_classes = config.model.num_classes
        thresholds = (UNCALIBRATED_MIN_SCORE,) * num_classes if calibration is None else calibration.thresholds
        if settings.min_score is not None:
            thresholds = (settings.min_score,) * num_classes
        return cls(calibration, thresholds, microseconds(settings.max_gap_s), microseconds(settings.min_event_s))
