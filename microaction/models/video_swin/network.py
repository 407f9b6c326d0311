"""Video Swin Transformer: attention in windows of 8×7×7 tokens, shifted in every second block. Needs torch alone.

Shapes: B clips, T frames, H height and W width in tokens, C channels, N tokens of a window, M windows of all clips.

Source: Liu et al., "Video Swin Transformer", CVPR 2022; layers and names as in mmaction2.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.layers import Blocks, Mlp, Scales, linear_rates, scaled, split_heads
from microaction.models.video_classifier import HeadOptions, VideoClassifier

Size = tuple[int, int, int]

PATCH: Size = (2, 4, 4)
WINDOW: Size = (8, 7, 7)
SHIFT: Size = (4, 3, 3)
NUM_BIASES = (2 * WINDOW[0] - 1) * (2 * WINDOW[1] - 1) * (2 * WINDOW[2] - 1)
MLP_RATIO = 4
HIDDEN = -100.0  # score of tokens of other regions
INIT_STD = 0.02


def window_of(size: Size, *, is_shifted: bool) -> tuple[Size, Size]:
    """Return the window and the shift for features of a size: a dimension no larger than its window is taken whole."""
    fits = [extent <= full for extent, full in zip(size, WINDOW, strict=True)]
    window = [extent if fit else full for extent, full, fit in zip(size, WINDOW, fits, strict=True)]
    shift = [0 if fit or not is_shifted else step for step, fit in zip(SHIFT, fits, strict=True)]
    return (window[0], window[1], window[2]), (shift[0], shift[1], shift[2])


def split_windows(x_BTHWC: Tensor, window: Size) -> Tensor:
    """Return the tokens [M, N, C] of windows, which must divide the features."""
    t, h, w = window
    B, T, H, W, C = x_BTHWC.shape
    x = x_BTHWC.view(B, T // t, t, H // h, h, W // w, w, C)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, t * h * w, C)


def join_windows(tokens_MNC: Tensor, window: Size, shape: Sequence[int]) -> Tensor:
    """Return features [B, T, H, W, C] of the given shape of their windows."""
    t, h, w = window
    B, T, H, W, C = shape
    x = tokens_MNC.view(B, T // t, H // h, W // w, t, h, w, C)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(B, T, H, W, C)


def relative_positions() -> Tensor:
    """Return which row of the table of biases belongs to each pair of tokens [N, N] of a full window."""
    position_N3 = torch.tensor(list(product(*map(range, WINDOW))))
    difference_NN3 = position_N3[:, None] - position_N3[None] + torch.tensor(WINDOW) - 1
    _, h, w = WINDOW
    strides = torch.tensor([(2 * h - 1) * (2 * w - 1), 2 * w - 1, 1])
    return (difference_NN3 * strides).sum(dim=2)


@lru_cache(maxsize=64)
def region_mask(size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Return what is added to scores [M of a clip, N, N] so that tokens that a shift brought together do not see each other."""
    regions = torch.zeros(1, *size, 1)
    slices = [
        (slice(0, -extent), slice(-extent, -step), slice(-step, None)) if step else (slice(None),)
        for extent, step in zip(window, shift, strict=True)
    ]
    for number, (t, h, w) in enumerate(product(*slices)):
        regions[:, t, h, w] = number
    region_MN = split_windows(regions, window)[..., 0]
    mask = torch.where(region_MN[:, :, None] == region_MN[:, None], 0.0, HIDDEN)
    return mask.to(device)


class WindowAttention(nn.Module):
    """Self-attention in each window, with a bias for every distance of two tokens."""

    relative_position_index: Tensor

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty(NUM_BIASES, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD)
        self.register_buffer("relative_position_index", relative_positions(), persistent=False)

    def forward(self, tokens_MNC: Tensor, mask_MNN: Tensor | None) -> Tensor:
        """Return the attended tokens; the mask is that of one clip's windows."""
        N = tokens_MNC.shape[1]
        query, key, value = split_heads(self.qkv(tokens_MNC), self.num_heads)
        index_NN = self.relative_position_index[:N, :N]  # the reference's rule for smaller windows
        bias = self.relative_position_bias_table[index_NN].permute(2, 0, 1)[None]
        if mask_MNN is not None:
            num_windows = len(mask_MNN)
            bias = (bias + mask_MNN[:, None]).repeat(len(tokens_MNC) // num_windows, 1, 1, 1)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        joined: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return joined


class SwinBlock(nn.Module):
    """Attention in windows, then an MLP."""

    def __init__(self, channels: int, num_heads: int, *, is_shifted: bool) -> None:
        super().__init__()
        self.is_shifted = is_shifted
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, MLP_RATIO * channels)

    def forward(self, x_BTHWC: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """Return the block's output."""
        x = x_BTHWC + scaled(self._attended(self.norm1(x_BTHWC)), first)
        return x + scaled(self.mlp(self.norm2(x)), second)

    def _attended(self, x_BTHWC: Tensor) -> Tensor:
        _, T, H, W, _ = x_BTHWC.shape
        window, shift = window_of((T, H, W), is_shifted=self.is_shifted)
        right, bottom, end = (-size % extent for size, extent in zip((W, H, T), window[::-1], strict=True))
        x = functional.pad(x_BTHWC, (0, 0, 0, right, 0, bottom, 0, end))
        mask = None
        if any(shift):
            x = x.roll([-step for step in shift], dims=(1, 2, 3))
            mask = region_mask((x.shape[1], x.shape[2], x.shape[3]), window, shift, x.device)
        x = join_windows(self.attn(split_windows(x, window), mask), window, x.shape)
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        return x[:, :T, :H, :W]


class PatchMerging(nn.Module):
    """Joins 2×2 tokens of a frame and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """Return features of half the height and width."""
        x = functional.pad(x_BTHWC, (0, 0, 0, x_BTHWC.shape[3] % 2, 0, x_BTHWC.shape[2] % 2))
        quarters = [x[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        merged: Tensor = self.reduction(self.norm(torch.cat(quarters, dim=4)))
        return merged


class PatchEmbedding(nn.Module):
    """A token for 2×4×4 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the tokens [B, T/2, H/4, W/4, C], after zero padding."""
        T, H, W = x_BCTHW.shape[2:]
        x = functional.pad(x_BCTHW, (0, -W % PATCH[2], 0, -H % PATCH[1], 0, -T % PATCH[0]))
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 4, 1))
        return tokens


class Stage(nn.Module):
    """Blocks, then a merging of patches but in the last stage."""

    def __init__(self, channels: int, depth: int, num_heads: int, *, is_last: bool) -> None:
        super().__init__()
        self.blocks = Blocks(SwinBlock(channels, num_heads, is_shifted=number % 2 == 1) for number in range(depth))
        self.downsample = None if is_last else PatchMerging(channels)

    def forward(self, x_BTHWC: Tensor, scales: Scales) -> Tensor:
        """Return the stage's output."""
        x: Tensor = self.blocks(x_BTHWC, scales)
        return x if self.downsample is None else self.downsample(x)


class Backbone(nn.Module):
    """The transformer: [B, 3, T, H, W] → [B, 8·width], the mean over the tokens."""

    def __init__(self, width: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width)
        self.layers = nn.ModuleList(
            Stage(width * 2**stage, depth, heads, is_last=stage == len(depths) - 1)
            for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
        )
        self.norm = nn.LayerNorm(width * 2 ** (len(depths) - 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x_BCTHW: Tensor, scales: Scales) -> Tensor:
        """Return the pooled features."""
        x: Tensor = self.patch_embed(x_BCTHW)
        used = 0
        for stage in self.layers:
            num_scales = 2 * len(stage.blocks)  # type: ignore[arg-type]
            x = stage(x, scales[used : used + num_scales])
            used += num_scales
        pooled: Tensor = self.norm(x).mean(dim=(1, 2, 3))
        return pooled


class VideoSwin(VideoClassifier):
    """Video Swin Transformer for clips of any size. Swin-T, the defaults, has 27,890,458 parameters."""

    backbone: Backbone

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 32,
        *,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        drop_path: float = 0.1,
    ) -> None:
        backbone = Backbone(width, depths, num_heads)
        super().__init__(backbone, num_frames, width * 2 ** (len(depths) - 1), 1, options)
        self.drop_path_rates = tuple(rate for rate in linear_rates(drop_path, sum(depths)) for _ in range(2))

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:
        """Return the features [B, 1, C]."""
        scales = scales or [None] * len(self.drop_path_rates)
        features_BC: Tensor = self.backbone(frames_BTCHW.transpose(1, 2), scales)
        return features_BC[:, None]
