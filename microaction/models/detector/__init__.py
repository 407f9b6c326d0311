"""A detector of actions in untrimmed video: points on a pyramid over time, each with classes and boundaries.

Needs torch, which is imported with the first name that is used. Source: ActionFormer (Zhang et al., ECCV 2022) and its authors'
code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.models.detector.decoding import Detections, decode_detections, soft_nms
    from microaction.models.detector.detection_network import DetectionInputs, DetectionNetwork
    from microaction.models.detector.importing import load_actionformer
    from microaction.models.detector.inference import DetectionHead, FeatureExtractor
    from microaction.models.detector.loss import DetectionLoss, detection_loss
    from microaction.models.detector.network import DetectorOutputs, PointDetector
    from microaction.models.detector.scoring import find_detections
    from microaction.models.detector.targets import Points, Targets, assign_targets

_MODULE_OF = {
    "DetectionHead": "inference",
    "DetectionInputs": "detection_network",
    "DetectionLoss": "loss",
    "DetectionNetwork": "detection_network",
    "Detections": "decoding",
    "DetectorOutputs": "network",
    "FeatureExtractor": "inference",
    "PointDetector": "network",
    "Points": "targets",
    "Targets": "targets",
    "assign_targets": "targets",
    "decode_detections": "decoding",
    "detection_loss": "loss",
    "find_detections": "scoring",
    "load_actionformer": "importing",
    "soft_nms": "decoding",
}

__all__ = [
    "DetectionHead",
    "DetectionInputs",
    "DetectionLoss",
    "DetectionNetwork",
    "Detections",
    "DetectorOutputs",
    "FeatureExtractor",
    "PointDetector",
    "Points",
    "Targets",
    "assign_targets",
    "decode_detections",
    "detection_loss",
    "find_detections",
    "load_actionformer",
    "soft_nms",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
