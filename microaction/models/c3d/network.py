"""C3D: eight 3×3×3 convolutions and two fully connected layers. Needs torch alone.

Shapes: B clips, T frames of a clip, C channels, H height, W width.

Source: Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015; layers as in mmaction2.
"""

import torch
from torch import Tensor, nn

from microaction.models.interface import Inputs, Outputs
from microaction.models.layers import Scales
from microaction.models.video_classifier import HeadOptions, VideoClassifier

GROUPS = (("1a",), ("2a",), ("3a", "3b"), ("4a", "4b"), ("5a", "5b"))
GROUP_WIDTHS = (1, 2, 4, 8, 8)  # times the first group's
POOLS = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
LAST_PADDING = (0, 1, 1)
FRAMES_DIVISOR = 16


class Backbone(nn.Module):
    """The convolutions and the first fully connected layer: [B, T, 3, H, W] → [B, 64·width], before its activation."""

    def __init__(self, num_frames: int, side: int, width: int, hidden: int) -> None:
        super().__init__()
        in_channels = 3
        for group, factor in zip(GROUPS, GROUP_WIDTHS, strict=True):
            for name in group:
                self.add_module(f"conv{name}", nn.Conv3d(in_channels, width * factor, 3, padding=1))
                in_channels = width * factor
        spatial = (side // 16 + 2) // 2
        self.fc6 = nn.Linear(in_channels * (num_frames // FRAMES_DIVISOR) * spatial**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        """Return what the first fully connected layer sees, flat."""
        x = frames_BTCHW.transpose(1, 2)
        for number, (group, kernel) in enumerate(zip(GROUPS, POOLS, strict=True)):
            for name in group:
                x = torch.relu(self.get_submodule(f"conv{name}")(x))
            padding = LAST_PADDING if number == len(GROUPS) - 1 else 0
            x = nn.functional.max_pool3d(x, kernel, kernel, padding)
        return x.flatten(1)


class C3D(VideoClassifier):
    """C3D on clips of `num_frames` frames, a multiple of 16, of `side`×`side` pixels.

    Dropout follows both fully connected layers, so its mask has two rows. The defaults have 78,208,820 parameters.
    """

    backbone: Backbone

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 16,
        *,
        side: int = 112,
        width: int = 64,
        hidden: int = 4096,
    ) -> None:
        if num_frames % FRAMES_DIVISOR or not num_frames:
            raise ValueError(f"C3D takes clips of a multiple of {FRAMES_DIVISOR} frames, not of {num_frames}")
        super().__init__(Backbone(num_frames, side, width, hidden), num_frames, hidden, 1, options)
        self.side = side
        self.dropout_shape = (2, hidden)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, 1, C] without any dropout."""
        return self._features(frames_BTCHW, None)

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the outputs of a batch of clips."""
        frames_BTCHW, mask_BRC = inputs.frames_BTCHW, inputs.dropout_mask_BTC
        if frames_BTCHW.shape[1:] != (self.num_frames, 3, self.side, self.side):
            raise ValueError(
                f"frames of shape {tuple(frames_BTCHW.shape)} must be [B, {self.num_frames}, 3, {self.side}, {self.side}]: the "
                "fully connected layers of C3D fit one size"
            )
        features_B1C = self._features(frames_BTCHW, mask_BRC)
        features_B1C = self.dropout(features_B1C) if mask_BRC is None else features_B1C * mask_BRC[:, 1:]
        return self.classify(features_B1C)

    def _features(self, frames_BTCHW: Tensor, mask_BRC: Tensor | None) -> Tensor:
        hidden_BC = torch.relu(self.backbone.fc6(self.backbone(frames_BTCHW)))
        hidden_BC = self.dropout(hidden_BC) if mask_BRC is None else hidden_BC * mask_BRC[:, 0]
        return torch.relu(self.backbone.fc7(hidden_BC))[:, None]
