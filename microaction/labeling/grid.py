"""How windows lie over videos: those of a classifier as the settings say, those of a detector at every step. Knows no torch."""

import logging
from typing import TYPE_CHECKING, TypeVar, cast

from microaction.labeling.settings import VideoLabelSettings
from microaction.video.windows import MICROSECONDS, STEP_US, STEPS, WindowGrid, microseconds

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig
    from microaction.models.detector.config import DetectorConfig

AnySettings = TypeVar("AnySettings", bound=VideoLabelSettings)
OF_CLASSIFIERS = ("window_s", "stride_s", "start_threshold", "continue_threshold", "abstain_below")
FAR = 1_000_000  # steps: from any end
LONGEST_CLIP = 128  # steps: of a backbone's clips, within which what a step needs varies

logger = logging.getLogger(__name__)


def is_detector(config: "CheckpointConfig") -> bool:
    """Return whether a checkpoint finds actions in untrimmed video, and does not classify windows."""
    return config.task == "detection"


def of_task(settings: AnySettings, config: "CheckpointConfig") -> AnySettings:
    """Return the settings as they are for a checkpoint: the windows of a detector are its steps, whatever is given."""
    if not is_detector(config):
        return settings
    step_s = STEP_US / MICROSECONDS
    return settings.model_copy(update={"window_s": step_s, "stride_s": step_s})


def window_grid(settings: VideoLabelSettings, config: "CheckpointConfig") -> WindowGrid:
    """Return how windows are laid over videos."""
    if is_detector(config):
        return STEPS
    return WindowGrid(microseconds(settings.window_s), microseconds(settings.stride_s))


def reach_us(config: "CheckpointConfig") -> int:
    """Return how far beyond a chunk frames decide its result."""
    if not is_detector(config):
        return 0
    model = cast("DetectorConfig", config.model)
    needed = [(step, model.needed_steps(range(step, step + 1), 2 * FAR)) for step in range(FAR, FAR + LONGEST_CLIP)]
    return max(max(step - around.start, around.stop - step - 1) for step, around in needed) * STEP_US


def warn_of_unused(settings: VideoLabelSettings, config: "CheckpointConfig") -> None:
    """Say which of the given settings have no effect with a checkpoint."""
    unused = sorted(settings.model_fields_set & set(OF_CLASSIFIERS))
    if is_detector(config) and unused:
        logger.warning(
            "%s: a detector has no windows, and this has no effect; min_score is its threshold", ", ".join(unused)
        )
