"""MANet: ResNet-50 with squeeze-and-excitation, temporal shift and a joint-embedding head.

Shapes: B clips, T frames of a clip, C channels, H height, W width, K actions, D embedding. Inside the network frames are
folded into the batch, F = B·T.

Source: Guo et al., "Benchmarking Micro-action Recognition", IEEE TCSVT 34(7), 2024. The residual network is torchvision's
layout (stride 2 on the 3×3 convolution). Module names are chosen so that the state dict is readable and so that a
torchvision ResNet-50 state dict fits the backbone name by name.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from microaction.models.layers import Scales
from microaction.models.video_classifier import HeadKind, HeadOptions, VideoClassifier

SHIFT_DIVISOR = 8  # reference: shift_div; 1/8 of the channels look one frame ahead, 1/8 one frame back
SQUEEZE_RATIO = 4  # reference: the excitation's hidden layer has C/4 units
EXPANSION = 4  # ResNet's bottleneck
HEAD_DROPOUT = 0.5
HEAD_INIT_STD = 0.001
RESNET50_WIDTH = 64
RESNET50_DEPTHS = (3, 4, 6, 3)


def temporal_shift(frames_FCHW: Tensor, num_frames: int, step: int = 1) -> Tensor:
    """Move an eighth of the channels `step` frames back in time and an eighth forward, filling with zeros.

    Of frame t the output holds channels [0, C/8) of frame t+step, channels [C/8, 2C/8) of frame t-step, and its own other
    channels. F must be a multiple of `num_frames`.
    """
    C = frames_FCHW.shape[1]
    fold = C // SHIFT_DIVISOR
    ahead, back, own = torch.split(frames_FCHW, [fold, fold, C - 2 * fold], dim=1)
    # Rolled over the clips' borders, then zeroed there: compilers make vector loops of this, but not of sliced writes.
    ahead, back = ahead.roll(-step, 0), back.roll(step, 0)
    for border in range(min(step, num_frames)):
        ahead[num_frames - 1 - border :: num_frames] = 0
        back[border::num_frames] = 0
    return torch.cat([ahead, back, own], dim=1)


class SqueezeExcitation(nn.Module):
    """Scales the channels of each frame by a gate computed from their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // SQUEEZE_RATIO, bias=False)
        self.excite = nn.Linear(channels // SQUEEZE_RATIO, channels, bias=False)

    def forward(self, frames_FCHW: Tensor) -> Tensor:
        """Return the scaled frames."""
        gate_FC = torch.sigmoid(self.excite(torch.relu(self.squeeze(frames_FCHW.mean(dim=(2, 3))))))
        return frames_FCHW * gate_FC[:, :, None, None]


class MixingBottleneck(nn.Module):
    """ResNet's bottleneck for frames; a subclass mixes the input of the first convolution, never the residual, over time.

    `mixing` are the modules that it does so with, by name.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, num_frames: int, **mixing: nn.Module | None
    ) -> None:
        super().__init__()
        for name, module in mixing.items():
            self.register_module(name, module)
        out_channels = channels * EXPANSION
        self.num_frames = num_frames
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if stride != 1 or in_channels != out_channels
            else None
        )

    def mixed(self, x_FCHW: Tensor) -> Tensor:
        """Return what the first convolution sees."""
        raise NotImplementedError

    def forward(self, x_FCHW: Tensor) -> Tensor:
        """Return the block's output."""
        return self.combined(x_FCHW, self.mixed(x_FCHW))

    def combined(self, x_FCHW: Tensor, mixed_FCHW: Tensor) -> Tensor:
        """Return the block's output for its input and what its first convolution sees of it."""
        residual = x_FCHW if self.downsample is None else self.downsample(x_FCHW)
        out = torch.relu(self.bn1(self.conv1(mixed_FCHW)))
        out = torch.relu(self.bn2(self.conv2(out)))
        expanded: Tensor = self.bn3(self.conv3(out)) + residual
        return torch.relu(expanded)


class Bottleneck(MixingBottleneck):
    """MANet's bottleneck: excitation, then temporal shift."""

    se: SqueezeExcitation | None

    def __init__(self, in_channels: int, channels: int, stride: int, num_frames: int, *, se: bool, shift: bool) -> None:
        super().__init__(in_channels, channels, stride, num_frames, se=SqueezeExcitation(in_channels) if se else None)
        self.shift = shift

    def mixed(self, x_FCHW: Tensor) -> Tensor:
        """Return what the first convolution sees."""
        out: Tensor = x_FCHW if self.se is None else self.se(x_FCHW)
        return temporal_shift(out, self.num_frames) if self.shift else out


class Backbone(nn.Module):
    """The residual network up to, and with, the global average pool: [F, 3, H, W] → [F, 32·width].

    `block` makes a bottleneck from the number of its input channels, its width and its stride.
    """

    def __init__(self, width: int, depths: Sequence[int], block: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = width
        stages: list[nn.Sequential] = []
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            blocks: list[nn.Module] = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(in_channels, channels, stride))
                in_channels = channels * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.num_features = in_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames_FCHW: Tensor) -> Tensor:
        """Return the pooled features."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(frames_FCHW))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled


class MANet(VideoClassifier):
    """Micro-action network: action logits and a label embedding for each clip.

    `forward` takes `Inputs` with normalized RGB frames [B, T, 3, H, W], T = `num_frames`, and returns `Outputs`: logits [B, K]
    and embeddings [B, D], each the mean over the clip's frames; class probabilities are the softmax of the logits. With
    `embedding_dim=None` there is no embedding branch, and the embedding is None.

    `se=False, embedding_dim=None` is TSM; with `shift=False` too it is TSN. `width` is the number of channels of the stem (64
    in ResNet-50, a multiple of 8) and `depths` the number of blocks of each of the four stages: smaller ones give small
    variants. The defaults have 32,284,252 parameters. Linear layers of the head start from N(0, 0.001) with zero bias.
    """

    backbone: Backbone

    def __init__(  # noqa: PLR0913 - the parts of one network
        self,
        num_classes: int = 52,
        num_frames: int = 8,
        embedding_dim: int | None = 300,
        *,
        width: int = RESNET50_WIDTH,
        depths: Sequence[int] = RESNET50_DEPTHS,
        se: bool = True,
        shift: bool = True,
        dropout: float = HEAD_DROPOUT,
        head: HeadKind = "plain",
    ) -> None:
        if width < SHIFT_DIVISOR or width % SHIFT_DIVISOR:
            raise ValueError(
                f"width ({width}) must be a multiple of {SHIFT_DIVISOR}, because the temporal shift moves eighths of "
                f"the channels; ResNet-50 has width={RESNET50_WIDTH}"
            )
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"depths {tuple(depths)} must be four numbers ≥ 1; ResNet-50 has {RESNET50_DEPTHS}")

        def block(in_channels: int, channels: int, stride: int) -> Bottleneck:
            return Bottleneck(in_channels, channels, stride, num_frames, se=se, shift=shift)

        options = HeadOptions(num_classes, head, embedding_dim, dropout, HEAD_INIT_STD)
        backbone = Backbone(width, depths, block)
        super().__init__(backbone, num_frames, backbone.num_features, num_frames, options)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, T, C] of each frame."""
        features_FC: Tensor = self.backbone(frames_BTCHW.flatten(0, 1))
        return features_FC.view(*frames_BTCHW.shape[:2], -1)
