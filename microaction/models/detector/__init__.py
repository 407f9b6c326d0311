"""A detector of actions in features of untrimmed video: points on a pyramid over time, each with classes and boundaries.

Needs torch alone. Source: ActionFormer (Zhang et al., ECCV 2022) and its authors' code.
"""

from microaction.models.detector.decoding import Detections, decode_detections, soft_nms
from microaction.models.detector.importing import load_actionformer
from microaction.models.detector.loss import DetectionLoss, detection_loss
from microaction.models.detector.network import DetectorOutputs, PointDetector
from microaction.models.detector.targets import Points, Targets, assign_targets

__all__ = [
    "DetectionLoss",
    "Detections",
    "DetectorOutputs",
    "PointDetector",
    "Points",
    "Targets",
    "assign_targets",
    "decode_detections",
    "detection_loss",
    "load_actionformer",
    "soft_nms",
]
