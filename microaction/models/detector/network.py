"""The detector's network. Needs torch alone.

Shapes: B videos, T steps of the features, L steps of a level, C channels, H heads, P points of all levels, K classes.

Features lie on a grid: number i speaks for [i/R, (i+1)/R) seconds at R features a second. Level l has every 2^l-th position.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.detector.targets import Points

NORM_EPSILON = 1e-5
MLP_RATIO = 4
PRIOR = 0.01  # of a class at a point, where training begins
SCALE_INIT = 1e-4  # of a block's branches
DROP_PATH = 0.1
MIN_WINDOW = 3
GLOBAL_PADDING = 8  # of sequences for attention without a window: a multiple of so many of the last level's strides
Boundaries = Literal["shared", "per-class"]
Mixing = Literal["attention", "max-pool"]


class DetectorOutputs(NamedTuple):
    """The output of a detector, for the points of all levels, one level after the other.

    `logits` [B, P, K]. `offsets` [B, P, 2]: distance of each point to the start and the end of its action, at least 0, in strides
    of its level; [B, P, K, 2] where each class has boundaries of its own. `mask` [B, P]: which points lie inside of the video.
    `points`: where they are.
    """

    logits: Tensor
    offsets: Tensor
    mask: Tensor
    points: Points


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Return the normalized features."""
        centered = x_BCT - x_BCT.mean(dim=1, keepdim=True)
        variance = centered.square().mean(dim=1, keepdim=True)
        return centered / torch.sqrt(variance + NORM_EPSILON) * self.weight + self.bias


class Attention(nn.Module):
    """Multi-head attention within ±(window // 2) positions, of queries, keys and values that a stride thins out."""

    def __init__(self, channels: int, num_heads: int, stride: int, window: int | None) -> None:
        super().__init__()
        self.num_heads, self.window, self.stride = num_heads, window, stride
        for name in ("query", "key", "value"):
            thinned = nn.Conv1d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
            self.add_module(f"{name}_conv", thinned)
            self.add_module(f"{name}_norm", ChannelNorm(channels))
            self.add_module(name, nn.Conv1d(channels, channels, 1))
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(self, x_BCT: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the attended features [B, C, L]; `mask_BL` are the real positions of the level."""
        real = mask_BL[:, None].to(x_BCT.dtype)
        query, key, value = (
            torch.unflatten(self._part(name, x_BCT, real), 1, (self.num_heads, -1)).transpose(2, 3)
            for name in ("query", "key", "value")
        )
        allowed = mask_BL[:, None, None, :]
        if self.window is not None:
            position = torch.arange(mask_BL.shape[1], device=x_BCT.device)
            allowed = allowed & ((position[:, None] - position).abs() <= self.window // 2)
        # A position without a real key attends to all: what it gives is masked.
        allowed = allowed | ~allowed.any(dim=3, keepdim=True)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        out: Tensor = self.proj(attended.transpose(2, 3).flatten(1, 2)) * real
        return out

    def _part(self, name: str, x_BCT: Tensor, real: Tensor) -> Tensor:
        thinned = self.get_submodule(f"{name}_conv")(x_BCT) * real
        part: Tensor = self.get_submodule(name)(self.get_submodule(f"{name}_norm")(thinned))
        return part


class Block(nn.Module):
    """A transformer block; with a stride of 2 it halves the length."""

    def __init__(self, channels: int, num_heads: int, stride: int, window: int | None) -> None:
        super().__init__()
        self.stride = stride
        self.ln1, self.ln2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attn = Attention(channels, num_heads, stride, window)
        hidden = MLP_RATIO * channels
        self.mlp = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.GELU(), nn.Conv1d(hidden, channels, 1))
        self.attn_scale = nn.Parameter(torch.full((1, channels, 1), SCALE_INIT))
        self.mlp_scale = nn.Parameter(torch.full((1, channels, 1), SCALE_INIT))

    def forward(self, x_BCT: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the features of the level whose real positions are `mask_BL`."""
        real = mask_BL[:, None].to(x_BCT.dtype)
        attended = self.attn(self.ln1(x_BCT), mask_BL)
        kept = x_BCT if self.stride == 1 else functional.max_pool1d(x_BCT, 3, 2, padding=1)
        x = kept * real + self._dropped(self.attn_scale * attended)
        return x + self._dropped(self.mlp_scale * (self.mlp(self.ln2(x)) * real))

    def _dropped(self, branch: Tensor) -> Tensor:
        """Leave out the branch of some videos in training."""
        if not self.training:
            return branch
        keep_B = torch.rand(len(branch), 1, 1, device=branch.device) >= DROP_PATH
        return branch * keep_B / (1 - DROP_PATH)


class MaxPool(nn.Module):
    """Halves the length, in place of a block (TemporalMaxer, Tang et al. 2023)."""

    def forward(self, x_BCT: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the features of the level whose real positions are `mask_BL`."""
        pooled = functional.max_pool1d(x_BCT, 3, 2, padding=1)
        return pooled * mask_BL[:, None].to(pooled.dtype)


class Head(nn.Module):
    """Two convolutions, then one to the outputs; shared by all levels."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in range(2))
        self.output = nn.Conv1d(channels, num_outputs, 3, padding=1)

    def forward(self, x_BCL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the outputs [B, outputs, L]."""
        real = mask_BL[:, None].to(x_BCL.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_BCL = torch.relu(norm(conv(x_BCL) * real))
        out: Tensor = self.output(x_BCL) * real
        return out


@dataclass(frozen=True)
class DetectorOptions:
    """The size of a detector; see `PointDetector.create`."""

    input_channels: int
    width: int
    num_heads: int
    num_classes: int = 52
    num_levels: int = 5
    window: int | None = 9
    stem_blocks: int = 1
    embedding_layers: int = 2
    boundaries: Boundaries = "shared"
    mixing: Mixing = "attention"

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})")
        for name, least in (("num_classes", 1), ("num_levels", 1), ("embedding_layers", 1), ("stem_blocks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least {least}")
        if self.window is not None and self.window < MIN_WINDOW:
            raise ValueError(f"window ({self.window}) must be at least {MIN_WINDOW}, or None for all positions")

    @property
    def pad_to(self) -> int:
        """What lengths of sequences are multiples of."""
        last_stride = 1 << (self.num_levels - 1)
        if self.mixing == "max-pool":
            return last_stride
        return last_stride * (GLOBAL_PADDING if self.window is None else 2 * (self.window // 2))


class PointDetector(nn.Module):
    """Points on a pyramid of levels over features; see `create`."""

    def __init__(self, options: DetectorOptions) -> None:
        super().__init__()
        self.options = options
        width, num_heads, window = options.width, options.num_heads, options.window
        self.embedding = nn.ModuleList(
            nn.Conv1d(options.input_channels if layer == 0 else width, width, 3, padding=1, bias=False)
            for layer in range(options.embedding_layers)
        )
        self.embedding_norms = nn.ModuleList(ChannelNorm(width) for _ in range(options.embedding_layers))
        self.stem = nn.ModuleList(Block(width, num_heads, 1, window) for _ in range(options.stem_blocks))
        self.branches = nn.ModuleList(
            Block(width, num_heads, 2, window) if options.mixing == "attention" else MaxPool()
            for _ in range(options.num_levels - 1)
        )
        self.level_norms = nn.ModuleList(ChannelNorm(width) for _ in range(options.num_levels))
        self.classes = Head(width, options.num_classes)
        nn.init.constant_(cast(Tensor, self.classes.output.bias), -math.log((1 - PRIOR) / PRIOR))
        self.distances = Head(width, 2 * (options.num_classes if options.boundaries == "per-class" else 1))
        self.level_scales = nn.Parameter(torch.ones(options.num_levels))

    @classmethod
    def create(cls, **options: Any) -> Self:
        """Return a detector with random weights.

        `options` are fields of `DetectorOptions`. `input_channels`: C of the features. `width`: channels of all levels, a
        multiple of `num_heads`. `window`: positions that attention sees at every level, itself in the middle; None: all.
        `stem_blocks`: blocks before the first level. `boundaries`: "shared", one pair of offsets a point, as the reference, or
        "per-class", one for each class. `mixing`: what halves the length from level to level, the reference's blocks
        ("attention") or a max pool ("max-pool"). Raises `ValueError` for numbers that do not fit.
        """
        return cls(DetectorOptions(**options))

    def forward(self, features_BTC: Tensor, mask_BT: Tensor | None = None) -> DetectorOutputs:
        """Return the outputs of features [B, T, C]; `mask_BT` [B, T] are those inside of each video, by default all.

        Sequences are padded on the right, so P counts points beyond the end too.
        """
        B, T, _ = features_BTC.shape
        if mask_BT is None:
            mask_BT = torch.ones(B, T, dtype=torch.bool, device=features_BTC.device)
        padding = -T % self.options.pad_to
        x_BCT = functional.pad(features_BTC.transpose(1, 2), (0, padding))
        mask_BT = functional.pad(mask_BT, (0, padding))
        x_BCT = x_BCT * mask_BT[:, None].to(x_BCT.dtype)
        logits, offsets, masks = [], [], []
        for level, (feature_BCL, mask_BL) in enumerate(self._levels(x_BCT, mask_BT)):
            logits.append(self.classes(feature_BCL, mask_BL).transpose(1, 2))
            distance_BDL = torch.relu(self.level_scales[level] * self.distances(feature_BCL, mask_BL))
            offsets.append(distance_BDL.transpose(1, 2))
            masks.append(mask_BL)
        offsets_BPD = torch.cat(offsets, dim=1)
        if self.options.boundaries == "per-class":
            offsets_BPD = torch.unflatten(offsets_BPD, 2, (self.options.num_classes, 2))
        points = Points.of_levels([mask.shape[1] for mask in masks], device=features_BTC.device)
        return DetectorOutputs(torch.cat(logits, dim=1), offsets_BPD, torch.cat(masks, dim=1), points)

    def _levels(self, x_BCT: Tensor, mask_BT: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the features and the real positions of each level."""
        real = mask_BT[:, None].to(x_BCT.dtype)
        for conv, norm in zip(self.embedding, self.embedding_norms, strict=True):
            x_BCT = torch.relu(norm(conv(x_BCT) * real))
        for block in self.stem:
            x_BCT = block(x_BCT, mask_BT)
        levels = [(x_BCT, mask_BT)]
        for branch in self.branches:
            mask_BT = mask_BT[:, ::2]
            x_BCT = branch(x_BCT, mask_BT)
            levels.append((x_BCT, mask_BT))
        return [(norm(x), mask) for norm, (x, mask) in zip(self.level_norms, levels, strict=True)]
