"""The detector's entry in the table of families. Importable without torch."""

from typing import TYPE_CHECKING, Any

from microaction.models.detector.config import DetectorConfig
from microaction.models.family import Family

if TYPE_CHECKING:
    import torch

    from microaction.models.detector.detection_network import DetectionNetwork
    from microaction.models.detector.inference import FeatureExtractor
    from microaction.models.interface import ChannelStatistics

INFERENCE_FRAMES = 64


def build(config: DetectorConfig) -> "DetectionNetwork":
    """Return a detector with random weights."""
    from microaction.models.detector.detection_network import DetectionNetwork

    return DetectionNetwork(config)


def for_inference(model: Any, statistics: "ChannelStatistics", dtype: "torch.dtype") -> "FeatureExtractor":
    """Return what a device runs of a detector: its backbone and first layer."""
    from microaction.models.detector.inference import FeatureExtractor

    return FeatureExtractor(model, statistics, dtype, INFERENCE_FRAMES)


def param_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights of convolutions and linear layers with decay, and norms, scales and biases without."""
    groups = []
    for name, is_decayed in (("weights", True), ("vectors", False)):
        chosen = [each for each in model.parameters() if (each.squeeze().ndim > 1) == is_decayed]
        decay = weight_decay if is_decayed else 0.0
        groups.append({"name": name, "params": chosen, "lr_factor": 1.0, "weight_decay": decay})
    return groups


DETECTOR_FAMILY = Family("detector", DetectorConfig, build, for_inference, param_groups, task="detection")
