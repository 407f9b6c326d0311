"""How windows lie over videos: those of a classifier as the settings say, those of a detector at every step. Knows no torch."""

from typing import TYPE_CHECKING, TypeVar

from microaction.labeling.settings import VideoLabelSettings
from microaction.video.windows import MICROSECONDS, STEP_US, STEPS, WindowGrid, microseconds

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig

AnySettings = TypeVar("AnySettings", bound=VideoLabelSettings)
REACH_US = (
    6 * MICROSECONDS
)  # generously: at most so far from a step are the frames that a detector's features depend on


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
    return REACH_US if is_detector(config) else 0
