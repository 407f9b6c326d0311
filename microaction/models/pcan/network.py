"""PCAN: frames and heatmaps of keypoints in two residual networks that exchange features. Needs torch alone.

Shapes: B clips, T frames, C channels, H height, W width, N tokens, K actions, P body parts, D of a prototype.

Source: Li et al., "Prototypical Calibrating Ambiguous Samples for Micro-Action Recognition", AAAI 2025, and the authors' code; it
builds on RGBPoseConv3D (Duan et al., CVPR 2022).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.heatmaps import Heat
from microaction.models.interface import Inputs, Network, Outputs
from microaction.models.layers import Scales
from microaction.models.pcan.family import FRAMES_RATIO
from microaction.models.resnet3d.network import residual_stage
from microaction.models.video_classifier import HeadOptions, VideoClassifier
from microaction.taxonomy import ACTIONS, BODY_PARTS

EXPANSION = 4
LATERAL_KERNEL, LATERAL_PADDING = 7, 3
NUM_HEADS = 8
ATTENTION_DROPOUT = 0.1
BODY_DIM, ACTION_DIM = 128, 256  # of prototypes
RECTIFICATION = {"rgb": 5.0, "pose": 1.0}  # weights of the prototypes' cosines in inference
CLASSIFIER_STD = 0.01
EPSILON = 1e-12
RGB_DEPTHS, POSE_DEPTHS = (3, 4, 6, 3), (4, 6, 3)
HEAT, POSE_HEAT = Heat(0.25, 0.7), Heat(1.0, 0.6)  # of the whole, and of the pose path alone
RGB_INFLATED, POSE_INFLATED = (False, False, True, True), (False, True, True)


class Path(nn.Module):
    """One residual network: a stem and `layer1`, `layer2`, …, which may see more channels than the stage before gave."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        depths: Sequence[int],
        inflated: Sequence[bool],
        *,
        is_strided: bool,
        added: Sequence[int] = (),
    ) -> None:
        """`is_strided`: the stem has strides and the first stage none (RGB), or the other way round (pose).

        `added`: channels that each stage sees beside those of the stage before.
        """
        super().__init__()
        stride = 2 if is_strided else 1
        self.conv1 = nn.Conv3d(in_channels, width, (1, 7, 7), (1, stride, stride), padding=(0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, stride, stride), padding=(0, 1, 1))
        self.num_features = width
        for stage, (depth, is_inflated) in enumerate(zip(depths, inflated, strict=True)):
            channels = width * 2**stage
            stage_in = self.num_features + (added[stage] if added else 0)
            stage_stride = 1 if is_strided and stage == 0 else 2
            self.add_module(
                f"layer{stage + 1}", residual_stage(stage_in, channels, [is_inflated] * depth, stage_stride)
            )
            self.num_features = channels * EXPANSION

    def stem(self, x_BCTHW: Tensor) -> Tensor:
        """Return the stem's output."""
        out: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(x_BCTHW))))
        return out

    def stage(self, number: int, x_BCTHW: Tensor) -> Tensor:
        """Return a stage's output."""
        out: Tensor = self.get_submodule(f"layer{number}")(x_BCTHW)
        return out


class ToPose(nn.Module):
    """Brings RGB features to the pose frames' rate."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(
            in_channels,
            out_channels,
            (LATERAL_KERNEL, 1, 1),
            (FRAMES_RATIO, 1, 1),
            padding=(LATERAL_PADDING, 0, 0),
            output_padding=(LATERAL_PADDING, 0, 0),
            bias=False,
        )
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the features for the pose path."""
        return torch.relu(self.bn(self.conv(x_BCTHW)))


class TokenAttention(nn.Module):
    """Attention of some tokens [B, N, C] to others, without residual or norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.fc = nn.Linear(channels, channels)

    def forward(self, own_BNC: Tensor, other_BNC: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attended tokens; `mask` [B, heads, N, N], if given, multiplies the weights in place of dropout."""
        query, key, value = (
            layer(tokens).unflatten(2, (NUM_HEADS, -1)).transpose(1, 2)
            for layer, tokens in ((self.q_proj, own_BNC), (self.k_proj, other_BNC), (self.v_proj, other_BNC))
        )
        weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
        weights = functional.dropout(weights, ATTENTION_DROPOUT, self.training) if mask is None else weights * mask
        joined: Tensor = self.fc((weights @ value).transpose(1, 2).flatten(2))
        return joined


class CrossAttention(nn.Module):
    """Adds to each path what its tokens learn from the other's: a token for every RGB frame."""

    def __init__(self, rgb_channels: int, channels: int) -> None:
        super().__init__()
        kernel = (FRAMES_RATIO, 1, 1)
        self.rgb_tokens = nn.Conv3d(rgb_channels, channels, 1)
        self.pose_tokens = nn.Conv3d(channels, channels, kernel, kernel)
        self.rgb_attn = TokenAttention(channels)
        self.pose_attn = TokenAttention(channels)
        self.to_rgb = nn.Conv3d(channels, rgb_channels, 1)
        self.to_pose = nn.ConvTranspose3d(channels, channels, kernel, kernel)

    def forward(self, rgb: Tensor, pose: Tensor, masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Return both paths' features [B, C, T, H, W] with what was exchanged."""
        a_BNC = self.rgb_tokens(rgb).amax(dim=(3, 4)).transpose(1, 2)
        b_BNC = self.pose_tokens(pose).amax(dim=(3, 4)).transpose(1, 2)
        a_BNC = self.rgb_attn(a_BNC, b_BNC, masks[0])
        b_BNC = self.pose_attn(b_BNC, a_BNC, masks[1])  # of the attended RGB tokens, as in the reference
        to_rgb = self.to_rgb(a_BNC.transpose(1, 2)[..., None, None])
        to_pose = self.to_pose(b_BNC.transpose(1, 2)[..., None, None])
        return rgb + rgb * to_rgb, pose + pose * to_pose


class Backbone(nn.Module):
    """Both paths. They exchange features after RGB stage 2 with pose stage 1, and after RGB stage 3 with pose stage 2."""

    def __init__(
        self,
        num_keypoints: int,
        rgb_width: int,
        pose_width: int,
        rgb_depths: Sequence[int],
        pose_depths: Sequence[int],
    ) -> None:
        super().__init__()
        exchanged = [pose_width * 2**stage * EXPANSION for stage in (0, 1)]  # channels of the pose path there
        lateral = [pose_width * 2**stage for stage in (0, 1)]
        self.rgb_path = Path(3, rgb_width, rgb_depths, RGB_INFLATED, is_strided=True, added=(0, 0, *exchanged))
        self.pose_path = Path(
            num_keypoints, pose_width, pose_depths, POSE_INFLATED, is_strided=False, added=(0, *lateral)
        )
        rgb_channels = [rgb_width * 2**stage * EXPANSION for stage in (1, 2)]
        self.to_rgb = nn.ModuleList(
            nn.Conv3d(
                channels,
                channels,
                (LATERAL_KERNEL, 1, 1),
                (FRAMES_RATIO, 1, 1),
                padding=(LATERAL_PADDING, 0, 0),
                bias=False,
            )
            for channels in exchanged
        )
        self.to_pose = nn.ModuleList(ToPose(*channels) for channels in zip(rgb_channels, lateral, strict=True))
        self.cross_attention = nn.ModuleList(
            CrossAttention(*channels) for channels in zip(rgb_channels, exchanged, strict=True)
        )

    def forward(self, rgb: Tensor, pose: Tensor, masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Return the features [B, C, T, H, W] of both paths' last stages."""
        rgb, pose = self.rgb_path.stage(1, self.rgb_path.stem(rgb)), self.pose_path.stem(pose)
        for number in (0, 1):
            rgb, pose = self.rgb_path.stage(number + 2, rgb), self.pose_path.stage(number + 1, pose)
            to_rgb, to_pose = self.to_rgb[number](pose), self.to_pose[number](rgb)
            rgb, pose = self.cross_attention[number](rgb, pose, masks[2 * number : 2 * number + 2])
            rgb, pose = torch.cat([rgb, to_rgb], dim=1), torch.cat([pose, to_pose], dim=1)
        return self.rgb_path.stage(4, rgb), self.pose_path.stage(3, pose)


class StreamOutputs(NamedTuple):
    """What the loss needs of one path: logits [B, K] and [B, P], and what is compared with prototypes, [B, D] each."""

    action_logits: Tensor
    body_logits: Tensor
    action_features: Tensor
    body_features: Tensor


class PCANOutputs(NamedTuple):
    """The output of PCAN.

    `logits` [B, K]: the logarithm of `action_probabilities`. `action_probabilities` [B, K] and `body_probabilities` [B, P]: means
    of both paths' softmax. `rgb` and `pose`: what the loss needs.
    """

    logits: Tensor
    action_probabilities: Tensor
    body_probabilities: Tensor
    rgb: StreamOutputs
    pose: StreamOutputs
    embedding: Tensor | None = None


class Stream(nn.Module):
    """The classifiers and prototypes on one path's features."""

    action_prototypes: Tensor
    body_prototypes: Tensor

    def __init__(self, channels: int, num_classes: int, rectification: float) -> None:
        super().__init__()
        self.rectification = rectification
        self.action = nn.Linear(channels, num_classes)
        self.body = nn.Linear(channels, len(BODY_PARTS))
        self.action_projection = nn.Linear(channels, ACTION_DIM)
        self.body_projection = nn.Linear(channels, BODY_DIM)
        self.register_buffer("action_prototypes", torch.randn(ACTION_DIM, num_classes))
        self.register_buffer("body_prototypes", torch.randn(BODY_DIM, len(BODY_PARTS)))
        for classifier in (self.action, self.body):
            nn.init.normal_(classifier.weight, std=CLASSIFIER_STD)
            nn.init.zeros_(classifier.bias)

    def forward(self, x_BCTHW: Tensor, dropout: nn.Module, mask_BC: Tensor | None) -> StreamOutputs:
        """Return the outputs. In evaluation the prototypes correct the actions' logits."""
        pooled_BC = x_BCTHW.mean(dim=(2, 3, 4))
        # Prototypes are made of maxima over space in training and compared with means in inference, as in the reference.
        compared_BC = x_BCTHW.mean(dim=2).amax(dim=(2, 3)) if self.training else pooled_BC
        action_BD, body_BD = self.action_projection(compared_BC), self.body_projection(compared_BC)
        dropped_BC = dropout(pooled_BC) if mask_BC is None else pooled_BC * mask_BC
        action_BK, body_BP = self.action(dropped_BC), self.body(dropped_BC)
        if not self.training:
            action_BK = action_BK + self.rectification * cosines(action_BD, self.action_prototypes)
        return StreamOutputs(action_BK, body_BP, action_BD, body_BD)


def cosines(features_BD: Tensor, prototypes_DK: Tensor) -> Tensor:
    """Return the cosine [B, K] of each feature with each prototype."""
    normal_BD = features_BD / (features_BD.norm(dim=1, keepdim=True) + EPSILON)
    cosine_BK: Tensor = normal_BD @ (prototypes_DK / (prototypes_DK.norm(dim=0, keepdim=True) + EPSILON))
    return cosine_BK


class PCAN(Network):
    """PCAN: `num_frames` RGB frames and four times as many heatmaps of keypoints.

    `forward` takes `Inputs` with `frames_BTCHW` [B, T, 3, H, W] and `heatmaps_BTKHW` [B, 4·T, keypoints, H/4, W/4], and returns
    `PCANOutputs`. Body parts have classifiers of their own. The defaults have 39,118,262 parameters, and prototypes as buffers.

    `drop_path_rates` are those of the attentions' weights.
    """

    heat = HEAT

    def __init__(
        self,
        num_frames: int = 8,
        *,
        num_classes: int = len(ACTIONS),
        num_keypoints: int = 28,
        rgb_width: int = 64,
        pose_width: int = 32,
        rgb_depths: Sequence[int] = RGB_DEPTHS,
        pose_depths: Sequence[int] = POSE_DEPTHS,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_frames, self.num_keypoints = num_frames, num_keypoints
        self.backbone = Backbone(num_keypoints, rgb_width, pose_width, rgb_depths, pose_depths)
        init_paths(self.backbone)
        channels = [self.backbone.rgb_path.num_features, self.backbone.pose_path.num_features]
        self.dropout = nn.Dropout(dropout)
        self.dropout_probability, self.dropout_shape = dropout, (1, sum(channels))
        self.rgb = Stream(channels[0], num_classes, RECTIFICATION["rgb"])
        self.pose = Stream(channels[1], num_classes, RECTIFICATION["pose"])
        self._num_weights = NUM_HEADS * num_frames**2
        self.drop_path_rates = (ATTENTION_DROPOUT,) * (4 * self._num_weights)

    def forward(self, inputs: Inputs) -> PCANOutputs:  # type: ignore[override]  # it has all that `Outputs` has
        """Return the outputs of a batch of clips."""
        frames_BTCHW, heatmaps_BTKHW = inputs.frames_BTCHW, inputs.heatmaps_BTKHW
        check_frames(frames_BTCHW, self.num_frames)
        heatmaps_BTKHW = checked_heatmaps(heatmaps_BTKHW, FRAMES_RATIO * self.num_frames, self.num_keypoints)
        masks: list[Tensor | None] = [None] * 4
        if inputs.drop_path_mask_BL is not None:
            shape = (NUM_HEADS, self.num_frames, self.num_frames)
            masks = [part.view(-1, *shape) for part in torch.split(inputs.drop_path_mask_BL, self._num_weights, dim=1)]
        features = self.backbone(frames_BTCHW.transpose(1, 2), heatmaps_BTKHW.transpose(1, 2), masks)
        dropout_masks: Sequence[Tensor | None] = (None, None)
        if inputs.dropout_mask_BTC is not None:
            dropout_masks = torch.split(inputs.dropout_mask_BTC[:, 0], [path.shape[1] for path in features], dim=1)
        rgb, pose = (
            stream(path, self.dropout, mask)
            for stream, path, mask in zip((self.rgb, self.pose), features, dropout_masks, strict=True)
        )
        action_BK = torch.stack([stream.action_logits.float().log_softmax(dim=1) for stream in (rgb, pose)])
        body_BP = torch.stack([stream.body_logits.float().log_softmax(dim=1) for stream in (rgb, pose)])
        return PCANOutputs(
            logits=action_BK.logsumexp(dim=0) - math.log(len(action_BK)),
            action_probabilities=action_BK.exp().mean(dim=0),
            body_probabilities=body_BP.exp().mean(dim=0),
            rgb=rgb,
            pose=pose,
        )


def check_frames(frames_BTCHW: Tensor, num_frames: int) -> None:
    """Raise `ValueError` for frames of another shape."""
    if frames_BTCHW.ndim != 5 or frames_BTCHW.shape[1] != num_frames or frames_BTCHW.shape[2] != 3:
        raise ValueError(f"frames of shape {tuple(frames_BTCHW.shape)} must be [B, T={num_frames}, 3, H, W]")


def checked_heatmaps(heatmaps_BTKHW: Tensor | None, num_frames: int, num_keypoints: int) -> Tensor:
    """Return the heatmaps; raise `ValueError` for those of another shape."""
    shape = None if heatmaps_BTKHW is None else tuple(heatmaps_BTKHW.shape)
    if heatmaps_BTKHW is None or shape is None or len(shape) != 5 or shape[1:3] != (num_frames, num_keypoints):
        raise ValueError(f"heatmaps of shape {shape} must be [B, T={num_frames}, K={num_keypoints}, H, W]")
    return heatmaps_BTKHW


def init_paths(module: nn.Module) -> None:
    """Begin the convolutions with He et al.'s normal distribution, and each block's last batch norm with 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm3d) and name.endswith(".bn3"):
            nn.init.zeros_(layer.weight)


class RGBNetwork(VideoClassifier):
    """PCAN's RGB path alone, to be trained before the whole. 31,741,044 parameters with 52 classes."""

    backbone: Path

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 8,
        *,
        width: int = 64,
        depths: Sequence[int] = RGB_DEPTHS,
    ) -> None:
        backbone = Path(3, width, depths, RGB_INFLATED, is_strided=True)
        init_paths(backbone)
        super().__init__(backbone, num_frames, backbone.num_features, 1, options)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, 1, C]."""
        x = self.backbone.stem(frames_BTCHW.transpose(1, 2))
        for number in range(1, len(RGB_INFLATED) + 1):
            x = self.backbone.stage(number, x)
        return x.mean(dim=(2, 3, 4))[:, None]


class PoseNetwork(VideoClassifier):
    """PCAN's pose path alone, to be trained before the whole. 2,038,004 parameters with 52 classes.

    It takes `num_frames` heatmaps; `Inputs.frames_BTCHW` may be empty.
    """

    backbone: Path
    heat = POSE_HEAT

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 32,
        *,
        num_keypoints: int = 28,
        width: int = 32,
        depths: Sequence[int] = POSE_DEPTHS,
    ) -> None:
        backbone = Path(num_keypoints, width, depths, POSE_INFLATED, is_strided=False)
        init_paths(backbone)
        super().__init__(backbone, num_frames, backbone.num_features, 1, options)
        self.num_keypoints = num_keypoints

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the outputs of a batch of clips."""
        mask_BTC = inputs.dropout_mask_BTC
        features_BTC = self.features(checked_heatmaps(inputs.heatmaps_BTKHW, self.num_frames, self.num_keypoints))
        return self.classify(self.dropout(features_BTC) if mask_BTC is None else features_BTC * mask_BTC)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it leaves out no branch
        """Return the features [B, 1, C] of heatmaps, whose keypoints are the channels."""
        x = self.backbone.stem(frames_BTCHW.transpose(1, 2))
        for number in range(1, len(POSE_INFLATED) + 1):
            x = self.backbone.stage(number, x)
        return x.mean(dim=(2, 3, 4))[:, None]
