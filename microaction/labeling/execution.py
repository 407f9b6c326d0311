"""How the network is run, and what of that identifies a run's results. Knows no Ray."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from microaction.labeling.settings import VideoLabelSettings
from microaction.models import Checkpoint
from microaction.models.classifier import Execution
from microaction.settings import digest_of
from microaction.storage import version_of

if TYPE_CHECKING:
    from microaction.models.detector import DetectionHead

Device = Literal["GPU", "CPU"]
BATCH_WINDOWS: dict[Device, int] = {"GPU": 64, "CPU": 8}
BATCH_STEPS: dict[Device, int] = {"GPU": 256, "CPU": 16}  # of a detector, which sees one frame at each
WINDOW_SETTINGS = {"window_s", "stride_s", "chunk_s"}  # what changes a chunk's windows; part of every chunk's id


def work_digest(checkpoint: Checkpoint) -> str:
    """Return the digest of what decides a chunk's result: of a detector, the backbone and the first layer alone."""
    if checkpoint.config.task == "recognition":
        return checkpoint.digest
    from microaction.models.detector.inference import features_digest

    return features_digest(checkpoint.model, checkpoint.config.preprocessing)


def detection_head(checkpoint: Checkpoint) -> "DetectionHead | None":
    """Return what turns a detector's stored features into detections; None for classifiers."""
    if checkpoint.config.task == "recognition":
        return None
    from microaction.models.detector import DetectionHead, DetectionNetwork

    assert isinstance(checkpoint.model, DetectionNetwork)
    return DetectionHead(checkpoint.model.detector, checkpoint.model.config)


def settings_digest(
    settings: VideoLabelSettings,
    execution: Execution,
    *,
    device: Device,
    batch_windows: int,
    relabel: dict[str, Any] | None = None,
) -> str:
    """Return the digest of all settings that decide a chunk's windows or their probabilities; part of every chunk's id.

    How the network is run changes its rounding, so it is decided once for all of a run. `relabel` says which windows of
    another run are reused.
    """
    skeletons = {}
    if settings.skeletons is not None:
        skeletons = {"skeletons": [settings.skeletons, version_of(settings.skeletons)]}
    how = asdict(execution) | {"device": device, "batch_windows": batch_windows, "relabel": relabel} | skeletons
    return digest_of(settings, WINDOW_SETTINGS, **how)
