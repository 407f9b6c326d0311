"""TIN: ResNet-50 whose blocks move groups of channels in time by distances that the network computes. Needs torch alone.

Shapes: B clips, T frames of a clip, F = B·T frames, C channels, H height, W width, G groups of channels.

Source: Shao et al., "Temporal Interlacing Network", AAAI 2020; layers and names as in mmaction2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microaction.models.layers import Scales
from microaction.models.manet.network import Backbone, MixingBottleneck
from microaction.models.video_classifier import HeadOptions, VideoClassifier

SHIFT_DIVISOR = 4  # a quarter of the channels moves, in four groups
NUM_OFFSETS = 2  # computed; the other two groups move the other way
MAX_OFFSET = 4  # times (−0.5, 0.5)
OFFSET_BIAS = 0.5108  # the offsets' first values are about ±0.5 frames


class Interlace(nn.Module):
    """Moves a quarter of the channels in time, and scales them."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames, self.num_moved = num_frames, channels // SHIFT_DIVISOR
        self.offset_conv = nn.Conv1d(self.num_moved, 1, 3, padding=1)
        self.offset_fc1 = nn.Linear(num_frames, num_frames)
        self.offset_fc2 = nn.Linear(num_frames, NUM_OFFSETS)
        self.gate_conv = nn.Conv1d(self.num_moved, NUM_OFFSETS, 3, padding=1)
        nn.init.zeros_(self.gate_conv.bias)  # type: ignore[arg-type]  # it has one
        nn.init.constant_(self.offset_fc2.bias, OFFSET_BIAS)

    def forward(self, x_FCHW: Tensor) -> Tensor:
        """Return the channels, the first quarter of them interlaced."""
        moved, own = x_FCHW[:, : self.num_moved], x_FCHW[:, self.num_moved :]
        moved_BTCHW = moved.reshape(-1, self.num_frames, *moved.shape[1:])
        means_BCT = moved_BTCHW.mean(dim=(3, 4)).transpose(1, 2)
        offset_BT = self.offset_fc1(self.offset_conv(means_BCT)[:, 0]).relu()
        offset_BG = MAX_OFFSET * (self.offset_fc2(offset_BT).sigmoid() - 0.5)
        gate_BGT = 2 * self.gate_conv(means_BCT).sigmoid()
        shifted = shift_groups(moved_BTCHW, torch.cat([offset_BG, -offset_BG], dim=1))
        gate_BTG = torch.cat([gate_BGT, gate_BGT], dim=1).transpose(1, 2)
        gate_BTC = gate_BTG.repeat_interleave(self.num_moved // (2 * NUM_OFFSETS), dim=2)
        return torch.cat([(shifted * gate_BTC[..., None, None]).flatten(0, 1), own], dim=1)


def shift_groups(x_BTCHW: Tensor, offset_BG: Tensor) -> Tensor:
    """Move each of G groups of channels by its own number of frames, linearly interpolated, zeros from outside of the clip.

    Moved by s whole frames, frame t + s of the output is frame t of the input.
    """
    B, T = x_BTCHW.shape[:2]
    G = offset_BG.shape[1]
    # Frame t of the output is a mixture of the input's frames: a matrix [T, T] for every clip and group.
    time_T = torch.arange(T, device=x_BTCHW.device, dtype=offset_BG.dtype)
    source_BGT = time_T - offset_BG[..., None]
    weight_BGTT = (1 - (source_BGT[..., None] - time_T).abs()).clamp(min=0).to(x_BTCHW.dtype)
    x_BGTN = x_BTCHW.reshape(B, T, G, -1).transpose(1, 2)
    moved: Tensor = (weight_BGTT @ x_BGTN).transpose(1, 2).reshape(x_BTCHW.shape)
    return moved


class InterlacedBottleneck(MixingBottleneck):
    """TIN's bottleneck."""

    interlace: Interlace

    def __init__(self, in_channels: int, channels: int, stride: int, num_frames: int) -> None:
        super().__init__(in_channels, channels, stride, num_frames, interlace=Interlace(in_channels, num_frames))

    def mixed(self, x_FCHW: Tensor) -> Tensor:
        """Return what the first convolution sees."""
        out: Tensor = self.interlace(x_FCHW)
        return out


class TIN(VideoClassifier):
    """Temporal interlacing network. The defaults have 23,645,588 parameters; they fit one number of frames."""

    backbone: Backbone

    def __init__(
        self, options: HeadOptions, num_frames: int = 8, *, width: int = 64, depths: Sequence[int] = (3, 4, 6, 3)
    ) -> None:
        divisor = SHIFT_DIVISOR * 2 * NUM_OFFSETS
        if width % divisor:
            raise ValueError(f"width ({width}) must be a multiple of {divisor}: sixteenths of the channels are moved")

        def block(in_channels: int, channels: int, stride: int) -> InterlacedBottleneck:
            return InterlacedBottleneck(in_channels, channels, stride, num_frames)

        backbone = Backbone(width, depths, block)
        super().__init__(backbone, num_frames, backbone.num_features, num_frames, options)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, T, C] of each frame."""
        features_FC: Tensor = self.backbone(frames_BTCHW.flatten(0, 1))
        return features_FC.view(*frames_BTCHW.shape[:2], -1)
