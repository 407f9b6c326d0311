"""Small detectors with random weights, which find something in any video."""

from pathlib import Path
from typing import Any

import torch

from microaction.models import CheckpointConfig, save_checkpoint
from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.detection_network import DetectionNetwork
from microaction.models.settings import parse_model_config
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS

SIDE = 32
SMALL_DETECTOR: dict[str, Any] = {
    "family": "detector",
    "backbone": {"preset": "manet", "width": 8, "depths": (1, 1, 1, 1), "num_frames": 8},
    "pyramid_width": 16,
}


def small_detector(*, seed: int = 0, head_seed: int | None = None, **changes: Any) -> DetectionNetwork:
    """Return a detector; `head_seed` changes all but what is stored of a video."""
    torch.manual_seed(seed)
    config = parse_model_config(SMALL_DETECTOR | changes)
    assert isinstance(config, DetectorConfig)
    network = DetectionNetwork(config)
    network.family = "detector"
    torch.manual_seed(seed if head_seed is None else head_seed)
    for name, parameter in network.detector.named_parameters():
        if not name.startswith(("embedding.0", "embedding_norms.0")) and parameter.squeeze().ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5)
    for head, mean in (
        (network.detector.classes, -3.0),
        (network.detector.dense, -2.0),
        (network.detector.distances, 2.0),
    ):
        assert head is not None
        torch.nn.init.normal_(head.output.bias, mean=mean)  # type: ignore[arg-type]
        torch.nn.init.normal_(head.output.weight, std=0.3)
    return network.eval()


def save_detector(folder: Path, **changes: Any) -> str:
    """Save `small_detector` as a checkpoint directory; return where."""
    network = small_detector(**changes)
    config = CheckpointConfig(
        model=network.config,
        preprocessing=Preprocessing(short_side=SIDE, crop=SIDE),
        labels=ACTIONS,
        recipe={},
        versions={},
        metrics={},
    )
    save_checkpoint(network, config, str(folder))
    return str(folder)
