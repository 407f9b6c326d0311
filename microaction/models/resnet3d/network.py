"""I3D and SlowFast on ResNet-50: residual networks of 3D convolutions. Needs torch alone.

Shapes: B clips, T frames of a clip, C channels, H height, W width.

Sources: Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; Feichtenhofer et al., "SlowFast Networks for Video
Recognition", ICCV 2019; layers as in mmaction2. Module names are torchvision's, so that 2D weights fit name by name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microaction.models.layers import Scales
from microaction.models.video_classifier import HeadOptions, VideoClassifier

EXPANSION = 4
# I3D: which blocks of a stage see three frames: every block of stage 1, then every other one.
I3D_INFLATION = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
FAST_RATIO = 8  # the fast path has 1/8 of the slow path's channels
LATERAL_EXPANSION = 2


class Bottleneck3d(nn.Module):
    """ResNet's bottleneck in space; if inflated, its first convolution sees three frames. Its stride is spatial."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, *, is_inflated: bool, is_first: bool) -> None:
        super().__init__()
        kernel, padding = ((3, 1, 1), (1, 0, 0)) if is_inflated else ((1, 1, 1), (0, 0, 0))
        out_channels, strides = channels * EXPANSION, (1, stride, stride)
        self.conv1 = nn.Conv3d(in_channels, channels, kernel, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, (1, 3, 3), strides, padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv3d(in_channels, out_channels, 1, strides, bias=False), nn.BatchNorm3d(out_channels))
            if is_first
            else None
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the block's output."""
        residual = x_BCTHW if self.downsample is None else self.downsample(x_BCTHW)
        out = torch.relu(self.bn1(self.conv1(x_BCTHW)))
        out = torch.relu(self.bn2(self.conv2(out)))
        expanded: Tensor = self.bn3(self.conv3(out)) + residual
        return torch.relu(expanded)


def residual_stage(in_channels: int, channels: int, inflation: Sequence[bool | int], stride: int) -> nn.Sequential:
    """Return bottlenecks one after the other; the first has the stride, and `inflation` says which see three frames."""
    blocks = []
    for number, is_inflated in enumerate(inflation):
        is_first = number == 0
        blocks.append(
            Bottleneck3d(
                in_channels if is_first else channels * EXPANSION,
                channels,
                stride if is_first else 1,
                is_inflated=bool(is_inflated),
                is_first=is_first,
            )
        )
    return nn.Sequential(*blocks)


def init_convolutions(module: nn.Module) -> None:
    """Begin all convolutions with He et al.'s normal distribution."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResNet3d(nn.Module):
    """I3D's backbone: [B, 3, T, H, W] → [B, 32·width]."""

    def __init__(self, width: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (5, 7, 7), stride=2, padding=(2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=2, padding=(0, 1, 1))
        self.pool2 = nn.MaxPool3d((2, 1, 1), stride=(2, 1, 1))
        in_channels = width
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            inflation = [I3D_INFLATION[stage][block % len(I3D_INFLATION[stage])] for block in range(depth)]
            self.add_module(
                f"layer{stage + 1}", residual_stage(in_channels, channels, inflation, 1 if stage == 0 else 2)
            )
            in_channels = channels * EXPANSION
        self.num_features = in_channels

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the pooled features."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x_BCTHW))))
        x = self.pool2(self.get_submodule("layer1")(x))
        for stage in (2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        pooled: Tensor = x.mean(dim=(2, 3, 4))
        return pooled


class I3D(VideoClassifier):
    """I3D on ResNet-50. The number of frames is free, but at least 8. The defaults have 27,330,420 parameters."""

    backbone: ResNet3d

    def __init__(
        self, options: HeadOptions, num_frames: int = 32, *, width: int = 64, depths: Sequence[int] = (3, 4, 6, 3)
    ) -> None:
        backbone = ResNet3d(width, depths)
        init_convolutions(backbone)
        super().__init__(backbone, num_frames, backbone.num_features, 1, options)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, 1, C]."""
        features_BC: Tensor = self.backbone(frames_BTCHW.transpose(1, 2))
        return features_BC[:, None]


def lateral_connection(channels: int, kernel: int, stride: int) -> nn.Conv3d:
    """Return what brings the fast path's features to the slow path's rate: a convolution in time with a stride.

    No norm or activation follows it, as in mmaction2; PySlowFast's has both.
    """
    return nn.Conv3d(
        channels, LATERAL_EXPANSION * channels, (kernel, 1, 1), (stride, 1, 1), padding=(kernel // 2, 0, 0), bias=False
    )


class Path(nn.Module):
    """One of SlowFast's two residual networks: `stages[0]` is the stem. Nothing pools or strides in time."""

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        *,
        stem_frames: int,
        inflated_from: int,
        lateral: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (stem_frames, 7, 7), (1, 2, 2), padding=(stem_frames // 2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        in_channels = width
        for stage, depth in enumerate(depths):
            if lateral is not None:
                fast_width, kernel, stride = lateral
                fast_channels = fast_width if stage == 0 else fast_width * 2 ** (stage - 1) * EXPANSION
                name = "conv1_lateral" if stage == 0 else f"layer{stage}_lateral"
                self.add_module(name, lateral_connection(fast_channels, kernel, stride))
                in_channels += LATERAL_EXPANSION * fast_channels
            channels = width * 2**stage
            inflation = [stage >= inflated_from] * depth
            self.add_module(
                f"layer{stage + 1}", residual_stage(in_channels, channels, inflation, 1 if stage == 0 else 2)
            )
            in_channels = channels * EXPANSION
        self.num_features = in_channels

    def stem(self, x_BCTHW: Tensor) -> Tensor:
        """Return the stem's output."""
        out: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(x_BCTHW))))
        return out


class SlowFastBackbone(nn.Module):
    """SlowFast's two paths: [B, 3, T, H, W] → [B, 36·width], the fast path's features first."""

    def __init__(self, width: int, depths: Sequence[int], ratio: int, kernel: int) -> None:
        super().__init__()
        self.ratio = ratio
        fast_width = width // FAST_RATIO
        self.slow_path = Path(
            width,
            depths,
            stem_frames=1,
            inflated_from=2,
            lateral=(fast_width, kernel, ratio),
        )
        self.fast_path = Path(fast_width, depths, stem_frames=5, inflated_from=0)
        self.num_features = self.slow_path.num_features + self.fast_path.num_features

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the pooled features of both paths."""
        slow, fast = self.slow_path.stem(x_BCTHW[:, :, :: self.ratio]), self.fast_path.stem(x_BCTHW)
        for stage in (1, 2, 3, 4):
            lateral = self.slow_path.get_submodule("conv1_lateral" if stage == 1 else f"layer{stage - 1}_lateral")
            slow = self.slow_path.get_submodule(f"layer{stage}")(torch.cat([slow, lateral(fast)], dim=1))
            fast = self.fast_path.get_submodule(f"layer{stage}")(fast)
        return torch.cat([fast.mean(dim=(2, 3, 4)), slow.mean(dim=(2, 3, 4))], dim=1)


class SlowFast(VideoClassifier):
    """SlowFast on ResNet-50: the slow path sees every `ratio`-th frame, which must divide the number of frames.

    The fast path's features reach the slow path through convolutions over `lateral_kernel` frames.
    """

    backbone: SlowFastBackbone

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 32,
        *,
        ratio: int = 8,
        lateral_kernel: int = 5,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 6, 3),
    ) -> None:
        if num_frames % ratio:
            raise ValueError(f"the slow path sees every {ratio}th frame, which does not divide {num_frames} frames")
        if width % FAST_RATIO:
            raise ValueError(f"width ({width}) must be a multiple of {FAST_RATIO}")
        backbone = SlowFastBackbone(width, depths, ratio, lateral_kernel)
        init_convolutions(backbone)
        super().__init__(backbone, num_frames, backbone.num_features, 1, options)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, 1, C]."""
        features_BC: Tensor = self.backbone(frames_BTCHW.transpose(1, 2))
        return features_BC[:, None]
