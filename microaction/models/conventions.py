"""How frames are prepared for each network: by its reference, and by us. Importable without torch.

Sources: Guo et al. 2024 and the authors' configurations (MANet, TSM, I3D); the challenge kit of MA-52 (Video Swin); mmaction2's
configurations for Kinetics (the others). The references test with three crops of a clip where this has the middle one.
"""

from typing import Any

from microaction.models.c3d.family import C3DConfig
from microaction.models.detector.config import DetectorConfig
from microaction.models.pcan.family import PCANConfig, PCANPoseConfig, PCANRGBConfig
from microaction.models.resnet3d.family import I3DConfig, SlowFastConfig
from microaction.models.settings import ModelConfig
from microaction.models.timesformer.family import TimeSformerConfig
from microaction.models.uniformer.family import UniFormerConfig
from microaction.models.video_swin.family import VideoSwinConfig
from microaction.models.video_vit.family import VideoViTConfig
from microaction.preprocessing import Preprocessing

SHORT_SIDE_RATIO = 8 / 7  # of the short side to the crop: 256 to 224, 128 to 112
C3D_STATISTICS = {"mean": (104.0, 117.0, 128.0), "std": (1.0, 1.0, 1.0)}  # BGR's means on RGB, as in the reference
HALF_STATISTICS = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
UNIFORMER_STATISTICS = {"mean": (114.75, 114.75, 114.75), "std": (57.375, 57.375, 57.375)}


def statistics_of(config: ModelConfig) -> dict[str, Any]:
    """Return what differs from the defaults of `Preprocessing` in the frames' size, mean and standard deviation."""
    match config:
        case DetectorConfig():
            return statistics_of(config.backbone)
        case C3DConfig():
            return _bound_to(config.side) | C3D_STATISTICS
        case TimeSformerConfig():
            return _bound_to(config.side) | HALF_STATISTICS
        case VideoViTConfig():
            return _bound_to(config.side)
        case UniFormerConfig():
            return UNIFORMER_STATISTICS
        case PCANConfig():
            return {"fit": "people", "test_side": 256}
        case PCANPoseConfig():
            return {"fit": "people", "short_side": 64, "crop": 56, "test_side": 64}
    return {}


def published_sampling(config: ModelConfig) -> dict[str, Any]:
    """Return which frames of a clip the reference takes, where that differs from the defaults of `Preprocessing`."""
    match config:
        case C3DConfig():
            return {"sampling": "consecutive", "views": 10}
        case I3DConfig() | SlowFastConfig():
            return {"sampling": "consecutive", "frame_interval": 2, "views": 10}
        case VideoSwinConfig():
            return {"sampling": "consecutive", "frame_interval": 2, "views": 4}
        case UniFormerConfig():
            return {"sampling": "consecutive", "frame_interval": 4, "views": 4}
        case VideoViTConfig():
            return {"sampling": "uniform"}
        case PCANConfig() | PCANPoseConfig():
            return {"sampling": "bins", "views": 10}
        case PCANRGBConfig():
            return {"sampling": "bins", "views": 10, "fit": "people"}
    return {}


def published_preprocessing(config: ModelConfig) -> Preprocessing:
    """Return the preprocessing that published weights of a network belong to."""
    return Preprocessing.model_validate(statistics_of(config) | published_sampling(config))


def _bound_to(side: int) -> dict[str, Any]:
    return {"short_side": round(side * SHORT_SIDE_RATIO), "crop": side}
