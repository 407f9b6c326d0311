"""The whole detector: a backbone's features of frames, and points and dense probabilities over them. Needs torch alone.

Shapes: B clips, T steps, C features, H height, W width, L residual branches.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.frame_features import frame_features, without_heads
from microaction.models.detector.network import DetectorOutputs, PointDetector
from microaction.models.interface import Network

STORED_PARTS = ("backbone.", "detector.embedding.0.", "detector.embedding_norms.0.")
"""How the names of the weights begin that decide what is stored of a video."""
FRAMES_PER_BATCH = 32  # of the backbone in training; it changes no result but by rounding


class DetectionInputs(NamedTuple):
    """The input of a detector: clips of some steps each.

    `features_BTC`: features of frames [B, T, C], zeros beyond a clip's end; or `frames_BTCHW`: normalized RGB frames
    [B, T, 3, H, W], from which the backbone makes them. `lengths_B`: steps of each clip. `drop_path_mask_BL`: as of `Inputs`.
    """

    lengths_B: tuple[int, ...]
    features_BTC: Tensor | None = None
    frames_BTCHW: Tensor | None = None
    drop_path_mask_BL: Tensor | None = None


def detector_of(config: DetectorConfig, num_features: int) -> PointDetector:
    """Return what a detector of this configuration learns from features of so many channels, with random weights."""
    return PointDetector.create(
        input_channels=num_features,
        width=config.pyramid_width,
        num_heads=config.attention_heads,
        num_classes=config.num_classes,
        num_levels=config.pyramid_levels,
        window=config.attention_window,
        stem_blocks=config.stem_blocks,
        boundaries=config.boundaries,
        mixing=config.mixing,
        dense=True,
    )


class DetectionNetwork(Network):
    """A detector of actions in untrimmed video: `forward(inputs: DetectionInputs) -> DetectorOutputs`.

    `backbone` is a classifier without its heads, `detector` what learns from its features.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        from microaction.models.families import build_model

        self.config = config
        backbone = build_model(config.backbone)
        shape = backbone.dropout_shape
        self.backbone = without_heads(backbone)
        assert shape is not None, "classifiers have dropout before their heads"
        self.num_features = shape[1]
        self.detector = detector_of(config, self.num_features)
        self.drop_path_rates = self.detector.drop_path_rates

    def forward(self, inputs: DetectionInputs) -> DetectorOutputs:  # type: ignore[override]
        """Return the outputs of a batch of clips."""
        features_BTC = inputs.features_BTC
        if features_BTC is None:
            assert inputs.frames_BTCHW is not None, "a detector needs frames or their features"
            clips = [
                self.features(frames_TCHW[:length])
                for frames_TCHW, length in zip(inputs.frames_BTCHW, inputs.lengths_B, strict=True)
            ]
            features_BTC = pad_sequence(clips, batch_first=True).float()
            missing = inputs.frames_BTCHW.shape[1] - features_BTC.shape[1]
            features_BTC = functional.pad(features_BTC, (0, 0, 0, missing))
        steps_T = torch.arange(features_BTC.shape[1], device=features_BTC.device)
        lengths_B = torch.tensor(inputs.lengths_B, device=features_BTC.device)
        return self.detector(features_BTC, steps_T < lengths_B[:, None], inputs.drop_path_mask_BL)  # type: ignore[no-any-return]

    def features(self, frames_TCHW: Tensor) -> Tensor:
        """Return the features [T, C] of a whole video's normalized frames [T, 3, H, W]."""
        T = len(frames_TCHW)
        steps = range(T)
        return frame_features(
            self.backbone, self.config, lambda part: frames_TCHW[part.start : part.stop], steps, T, FRAMES_PER_BATCH
        )
