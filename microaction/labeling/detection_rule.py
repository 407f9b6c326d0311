"""Which detections are events. Knows no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from microaction.labeling.settings import VideoLabelSettings
from microaction.models.score_calibration import ScoreCalibration
from microaction.video.windows import microseconds

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig


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
        default = (settings.start_threshold,) * config.model.num_classes
        thresholds = default if calibration is None else calibration.thresholds
        if settings.min_score is not None:
            thresholds = (settings.min_score,) * config.model.num_classes
        return cls(calibration, thresholds, microseconds(settings.max_gap_s), microseconds(settings.min_event_s))
