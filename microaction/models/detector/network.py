"""The detector's network. Needs torch alone.

Shapes: B videos, T steps of the features, L steps of a level, C channels, H heads, P points of all levels, K classes.

Features lie on a grid: number i speaks for [i/R, (i+1)/R) seconds at R features a second. Level l has every 2^l-th position.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.detector.targets import Points
from microaction.models.layers import Scales, scaled

NORM_EPSILON = 1e-5
MLP_RATIO = 4
PRIOR = 0.01  # of a class at a point, where training begins
SCALE_INIT = 1e-4  # of a block's branches
DROP_PATH = 0.1
MIN_WINDOW = 3
LOCAL_POSITIONS = 512  # of a sequence that attend at once, where attention has a window
GLOBAL_PADDING = 8  # of sequences for attention without a window: a multiple of so many of the last level's strides
Boundaries = Literal["shared", "per-class"]
Mixing = Literal["attention", "max-pool"]


class DetectorOutputs(NamedTuple):
    """The output of a detector, for the points of all levels, one level after the other.

    `logits` [B, P, K]. `offsets` [B, P, 2]: distance of each point to the start and the end of its action, at least 0, in strides
    of its level; [B, P, K, 2] where each class has boundaries of its own. `mask` [B, P]: which points lie inside of the video.
    `points`: where they are. `dense` [B, T, K]: logits of each class at every step, where the detector has a dense head; T is
    padded, as the first level is.
    """

    logits: Tensor
    offsets: Tensor
    mask: Tensor
    points: Points
    dense: Tensor | None = None


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
        attended = self._attended(query, key, value, mask_BL)
        out: Tensor = self.proj(attended.transpose(2, 3).flatten(1, 2)) * real
        return out

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the attention of [B, H, L, C]; with a window, of long sequences part by part, as memory grows with L²."""
        L = mask_BL.shape[1]
        position_L = torch.arange(L, device=query.device)
        reach = L if self.window is None else self.window // 2
        size = L if self.window is None else LOCAL_POSITIONS
        parts = []
        for start in range(0, L, size):
            stop, first, last = min(start + size, L), max(start - reach, 0), min(start + size + reach, L)
            allowed = mask_BL[:, None, None, first:last]
            if self.window is not None:
                allowed = allowed & ((position_L[start:stop, None] - position_L[first:last]).abs() <= reach)
            # A position without a real key attends to all: what it gives is masked.
            allowed = allowed | ~allowed.any(dim=3, keepdim=True)
            keys, values = key[:, :, first:last], value[:, :, first:last]
            parts.append(
                functional.scaled_dot_product_attention(query[:, :, start:stop], keys, values, attn_mask=allowed)
            )
        return torch.cat(parts, dim=2)

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

    def forward(self, x_BCT: Tensor, mask_BL: Tensor, scales: Scales = (None, None)) -> Tensor:
        """Return the features of the level whose real positions are `mask_BL`; `scales` are those of the two branches."""
        real = mask_BL[:, None].to(x_BCT.dtype)
        attended = self.attn(self.ln1(x_BCT), mask_BL)
        kept = x_BCT if self.stride == 1 else functional.max_pool1d(x_BCT, 3, 2, padding=1)
        x = kept * real + scaled(self.attn_scale * attended, scales[0])
        return x + scaled(self.mlp_scale * (self.mlp(self.ln2(x)) * real), scales[1])


class MaxPool(nn.Module):
    """Halves the length, in place of a block (TemporalMaxer, Tang et al. 2023)."""

    def forward(self, x_BCT: Tensor, mask_BL: Tensor, scales: Scales = ()) -> Tensor:  # noqa: ARG002 - it has no branch
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
    dense: bool = False

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
        self.dense: Head | None = None
        if options.dense:
            self.dense = Head(width, options.num_classes)
            nn.init.constant_(cast(Tensor, self.dense.output.bias), -math.log((1 - PRIOR) / PRIOR))
        self.drop_path_rates = (DROP_PATH, DROP_PATH) * (
            options.stem_blocks + (options.num_levels - 1) * (options.mixing == "attention")
        )

    @classmethod
    def create(cls, **options: Any) -> Self:
        """Return a detector with random weights.

        `options` are fields of `DetectorOptions`. `input_channels`: C of the features. `width`: channels of all levels, a
        multiple of `num_heads`. `window`: positions that attention sees at every level, itself in the middle; None: all.
        `stem_blocks`: blocks before the first level. `boundaries`: "shared", one pair of offsets a point, as the reference, or
        "per-class", one for each class. `mixing`: what halves the length from level to level, the reference's blocks
        ("attention") or a max pool ("max-pool"). `dense`: a second head, with logits of every class at every step. Raises
        `ValueError` for numbers that do not fit.
        """
        return cls(DetectorOptions(**options))

    def forward(
        self, features_BTC: Tensor, mask_BT: Tensor | None = None, drop_path_mask_BL: Tensor | None = None
    ) -> DetectorOutputs:
        """Return the outputs of features [B, T, C]; `mask_BT` [B, T] are those inside of each video, by default all.

        Sequences are padded on the right, so P counts points beyond the end too. `drop_path_mask_BL`: in training, 0 or
        1/(1 − rate) for every branch of `drop_path_rates`, in place of a random mask.
        """
        mask_BT = _all_real(features_BTC) if mask_BT is None else mask_BT
        x_BCT, mask_BT = self._padded(features_BTC.transpose(1, 2), mask_BT)
        real = mask_BT[:, None].to(x_BCT.dtype)
        embedded_BCT = torch.relu(self.embedding_norms[0](self.embedding[0](x_BCT * real) * real))
        return self._outputs(embedded_BCT, mask_BT, self._scales(len(features_BTC), drop_path_mask_BL, x_BCT.device))

    def embed(self, neighborhoods_TN: Tensor) -> Tensor:
        """Return the first layer's output [T, width] for the features of each step and its two neighbors [T, 3·C], zeros beyond
        a video's ends: what `detect` takes."""
        first = cast(nn.Conv1d, self.embedding[0])
        weight = first.weight.transpose(1, 2).flatten(1)  # [width, 3·C]
        embedded_TC = functional.linear(neighborhoods_TN, weight)
        return torch.relu(self.embedding_norms[0](embedded_TC.T[None]))[0].T

    def detect(self, embedded_BTC: Tensor) -> DetectorOutputs:
        """Return the outputs for what `embed` returned of whole videos [B, T, width]."""
        embedded_BCT, mask_BT = self._padded(embedded_BTC.transpose(1, 2), _all_real(embedded_BTC))
        # Beyond the end the first layer sees nothing: what is left is its norm's bias.
        beyond_1C1 = torch.relu(cast(Tensor, self.embedding_norms[0].bias))
        embedded_BCT = torch.where(mask_BT[:, None], embedded_BCT, beyond_1C1)
        return self._outputs(embedded_BCT, mask_BT, self._scales(len(embedded_BTC), None, embedded_BTC.device))

    def _padded(self, x_BCT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        padding = (0, -x_BCT.shape[2] % self.options.pad_to)
        return functional.pad(x_BCT, padding), functional.pad(mask_BT, padding)

    def _scales(self, num_videos: int, mask_BL: Tensor | None, device: torch.device) -> Scales:
        """Return the factor [B] of each branch, None for 1: as given, or random ones in training."""
        if mask_BL is None:
            if not self.training:
                return [None] * len(self.drop_path_rates)
            is_kept_BL = torch.rand(num_videos, len(self.drop_path_rates), device=device) >= DROP_PATH
            mask_BL = is_kept_BL / (1 - DROP_PATH)
        return cast(Sequence[Tensor], mask_BL.unbind(dim=1))

    def _outputs(self, embedded_BCT: Tensor, mask_BT: Tensor, scales: Scales) -> DetectorOutputs:
        logits, offsets, masks = [], [], []
        levels = self._levels(embedded_BCT, mask_BT, scales)
        for level, (norm, (x_BCL, mask_BL)) in enumerate(zip(self.level_norms, levels, strict=True)):
            feature_BCL = norm(x_BCL)
            logits.append(self.classes(feature_BCL, mask_BL).transpose(1, 2))
            distance_BDL = torch.relu(self.level_scales[level] * self.distances(feature_BCL, mask_BL))
            offsets.append(distance_BDL.transpose(1, 2))
            masks.append(mask_BL)
        offsets_BPD = torch.cat(offsets, dim=1)
        if self.options.boundaries == "per-class":
            offsets_BPD = torch.unflatten(offsets_BPD, 2, (self.options.num_classes, 2))
        points = Points.of_levels([mask.shape[1] for mask in masks], device=embedded_BCT.device)
        dense_BTK = None if self.dense is None else self.dense(*levels[0]).transpose(1, 2)
        return DetectorOutputs(torch.cat(logits, dim=1), offsets_BPD, torch.cat(masks, dim=1), points, dense_BTK)

    def _levels(self, x_BCT: Tensor, mask_BT: Tensor, scales: Scales) -> list[tuple[Tensor, Tensor]]:
        """Return the features and the real positions of each level."""
        real = mask_BT[:, None].to(x_BCT.dtype)
        for conv, norm in zip(self.embedding[1:], self.embedding_norms[1:], strict=True):
            x_BCT = torch.relu(norm(conv(x_BCT) * real))
        of_block = iter([(first, second) for first, second in zip(scales[::2], scales[1::2], strict=True)])
        for block in self.stem:
            x_BCT = block(x_BCT, mask_BT, next(of_block))
        levels = [(x_BCT, mask_BT)]
        for branch in self.branches:
            mask_BT = mask_BT[:, ::2]
            x_BCT = branch(x_BCT, mask_BT, next(of_block, ()))
            levels.append((x_BCT, mask_BT))
        return levels


def _all_real(x_BTC: Tensor) -> Tensor:
    return torch.ones(x_BTC.shape[:2], dtype=torch.bool, device=x_BTC.device)
