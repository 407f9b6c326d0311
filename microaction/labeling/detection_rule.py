"""Which detections are events. Knows no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from microaction.labeling.settings import VideoLabelSettings
from microaction.models.score_calibration import ScoreCalibration
from microaction.video.windows import STEP_US, microseconds

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig

ACTIVE_PROBABILITY = 0.5
UNCALIBRATED_MIN_SCORE = 0.5  # of a checkpoint without working thresholds


@dataclass(frozen=True)
class DetectionRule:
    """Which detections are events: those of at least the action's threshold, on calibrated scores.

    A detector is trained on clips of `clip_us`, and detects what lasts longer in pieces, or only where it begins and ends. So a
    detection of more than half of that lasts as long as the action's dense probability stays above `active_probability`, where
    that is longer than a clip. Events of an action at most `max_gap_us` apart are joined; those that are then shorter than
    `min_event_us` are dropped.
    """

    calibration: ScoreCalibration | None
    thresholds: tuple[float, ...]
    max_gap_us: int
    min_event_us: int
    clip_us: int
    active_probability: float = ACTIVE_PROBABILITY

    @classmethod
    def of(cls, settings: VideoLabelSettings, config: "CheckpointConfig") -> Self:
        """Return the rule that settings describe: without a `min_score`, the thresholds are the checkpoint's working ones."""
        calibration = config.score_calibration
        num_classes = config.model.num_classes
        thresholds = (UNCALIBRATED_MIN_SCORE,) * num_classes if calibration is None else calibration.thresholds
        if settings.min_score is not None:
            thresholds = (settings.min_score,) * num_classes
        gap_us, min_us = microseconds(settings.max_gap_s), microseconds(settings.min_event_s)
        return cls(calibration, thresholds, gap_us, min_us, clip_us=config.model.num_frames * STEP_US)
