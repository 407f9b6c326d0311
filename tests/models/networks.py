"""Networks for tests."""

import math
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from microaction.models import CheckpointConfig, ManetConfig, Network, create_model, save_checkpoint
from microaction.models.settings import parse_model_config
from microaction.models.video_classifier import VideoClassifier
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS

AnyNetwork = TypeVar("AnyNetwork", bound=Network)

SMALL = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=12)
SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "manet": {"width": 16, "depths": (1, 1, 1, 1), "embedding_dim": 12},
    "tsm": {"width": 16, "depths": (1, 1, 1, 1)},
    "tsn": {"width": 16, "depths": (1, 1, 1, 1)},
    "c3d": {"width": 4, "hidden": 16, "side": 32},
    "i3d-r50": {"width": 8, "depths": (1, 2, 2, 1), "num_frames": 8},
    "slowfast-r50-4x16": {"width": 16, "depths": (1, 1, 1, 1), "num_frames": 16},
    "slowfast-r50-8x8": {"width": 16, "depths": (1, 1, 1, 1), "num_frames": 8},
    "tin-r50": {"width": 16, "depths": (1, 1, 1, 1), "num_frames": 4},
    "video-swin-t": {"width": 12, "depths": (2, 2), "num_heads": (2, 4), "num_frames": 4},
    "video-swin-s": {"width": 12, "depths": (2, 3), "num_heads": (2, 4), "num_frames": 10},
    "video-swin-b": {"width": 16, "depths": (1, 2), "num_heads": (2, 4), "num_frames": 4},
    "timesformer": {"width": 24, "depth": 2, "num_heads": 3, "side": 32, "num_frames": 4},
    "uniformer-s": {"widths": (8, 16, 16, 32), "depths": (1, 1, 2, 1), "head_width": 8, "num_frames": 4},
    "uniformer-b": {"widths": (8, 8, 16, 16), "depths": (1, 2, 1, 1), "head_width": 8, "num_frames": 8},
    "vit-s": {"width": 24, "depth": 2, "num_heads": 3, "side": 32, "num_frames": 4},
    "vit-b": {"width": 32, "depth": 2, "num_heads": 4, "side": 32, "num_frames": 4},
    "vit-l": {"width": 48, "depth": 3, "num_heads": 4, "side": 32, "num_frames": 4},
    "pcan-rgb": {"width": 8, "depths": (1, 1, 1, 1), "num_frames": 4},
}
"""Every preset that sees frames alone, at reduced size."""
SMALL_POSE_NETWORKS: dict[str, dict[str, Any]] = {
    "pcan": {"rgb_width": 8, "pose_width": 4, "rgb_depths": (1, 1, 1, 1), "pose_depths": (1, 1, 1), "num_frames": 4},
    "pcan-pose": {"width": 4, "depths": (1, 1, 1), "num_frames": 16},
}
"""Every preset that sees skeletons, at reduced size."""
SIDE = 32  # of frames that all of them take

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def small_network(preset: str, **changes: Any) -> VideoClassifier:
    """Return a preset at reduced size, with random weights, in evaluation mode."""
    network = create_model(preset, **(SMALL_NETWORKS[preset] | changes))
    assert isinstance(network, VideoClassifier)
    return randomize_weights(network)


def normal_frames(network: VideoClassifier, num_clips: int = 2, seed: int = 7) -> torch.Tensor:
    """Return normalized frames [B, T, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, network.num_frames, 3, SIDE, SIDE, generator=generator)


def randomize_weights(model: AnyNetwork, seed: int = 0) -> AnyNetwork:
    """Give all weights random values of ordinary size, where initial ones would hide most of the network behind zeros."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) / math.sqrt(value[0].numel()))
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + ("bn" in name and "weight" in name))
    return model.eval()


def people_checkpoint(folder: Path, preset: str, **changes: Any) -> str:
    """Write a small network with random weights that sees the square around people; return its path."""
    small = (SMALL_NETWORKS | SMALL_POSE_NETWORKS)[preset]
    pixels = {"short_side": SIDE, "crop": SIDE, "fit": "people", "sampling": "bins"} | changes
    config = CheckpointConfig(
        model=parse_model_config({"preset": preset, **small}),
        preprocessing=Preprocessing.model_validate(pixels),
        labels=ACTIONS,
        recipe={},
        versions={},
        metrics={},
    )
    save_checkpoint(randomize_weights(create_model(preset, **small)), config, str(folder / preset))
    return str(folder / preset)
