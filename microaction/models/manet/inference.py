"""A trained MANet in the form in which a device runs it fastest. Needs torch alone.

Shapes: B clips, T frames of a clip, F = B·T frames, C features, H height, W width, K actions.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from microaction.models.interface import ChannelStatistics
from microaction.models.manet.network import Bottleneck, MANet
from microaction.models.normalize import normalize_frames


class InferenceModel(nn.Module):
    """Logits [B, K] (float32) of uint8 RGB frames [B, T, H, W, 3]: those of `model` in evaluation mode, faster.

    A copy of the weights in `dtype`, which bfloat16 rounds to 8 bits. Batch norms are folded into the convolutions before
    them, memory is channels-last, the embedding branch is left out, and the classifier, which is linear, sees the mean of a
    clip's frames instead of every frame; it stays in float32.
    """

    def __init__(self, model: MANet, statistics: ChannelStatistics, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.statistics, self.dtype = statistics, dtype
        self.backbone = copy.deepcopy(model.backbone).eval().requires_grad_(False)
        self.action = copy.deepcopy(model.action).float().requires_grad_(False)
        _fold(self.backbone, "conv1", "bn1")
        for block in self.backbone.modules():
            if isinstance(block, Bottleneck):
                for number in (1, 2, 3):
                    _fold(block, f"conv{number}", f"bn{number}")
                if block.downsample is not None:
                    _fold(block.downsample, "0", "1")
        self.backbone.to(dtype)
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return the logits."""
        B, T = frames_BTHWC.shape[:2]
        frames_BTCHW = normalize_frames(frames_BTHWC, self.statistics).to(self.dtype)
        features_FC = self.backbone(frames_BTCHW.flatten(0, 1)).float()
        return cast(Tensor, self.action(features_FC.unflatten(0, (B, T)).mean(dim=1)))


def _fold(parent: nn.Module, convolution: str, batch_norm: str) -> None:
    before = cast(nn.Conv2d, parent.get_submodule(convolution))
    setattr(parent, convolution, fuse_conv_bn_eval(before, cast(nn.BatchNorm2d, parent.get_submodule(batch_norm))))
    setattr(parent, batch_norm, nn.Identity())
