"""The vision transformer of VideoMAE: plain attention over all 2×16×16 patches of a clip. Needs torch alone.

Shapes: B clips, N tokens, C channels.

Source: Tong et al., "VideoMAE", NeurIPS 2022; layers as in mmaction2 and the authors' code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.layers import Blocks, Mlp, Scales, linear_rates, scaled, split_heads
from microaction.models.video_classifier import HeadOptions, VideoClassifier

PATCH = 16
TUBELET = 2  # frames of a token
NORM_EPSILON = 1e-6
WAVELENGTH = 10_000
INIT_STD = 0.02


def sinusoid(num_tokens: int, channels: int) -> Tensor:
    """Return the fixed position embedding [1, N, C], computed in float64."""
    channel_C = torch.arange(channels, dtype=torch.float64)
    angle_NC = torch.arange(num_tokens, dtype=torch.float64)[:, None] / WAVELENGTH ** (2 * (channel_C // 2) / channels)
    angle_NC[:, 0::2] = angle_NC[:, 0::2].sin()
    angle_NC[:, 1::2] = angle_NC[:, 1::2].cos()
    return angle_NC.float()[None]


class BiasedAttention(nn.Module):
    """Self-attention with biases of queries and values alone."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return the attended tokens."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = split_heads(functional.linear(tokens_BNC, self.qkv.weight, bias), self.num_heads)
        attended = functional.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return joined


class Block(nn.Module):
    """Attention, then an MLP."""

    def __init__(self, channels: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, NORM_EPSILON)
        self.attn = BiasedAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels, NORM_EPSILON)
        self.mlp = Mlp(channels, round(mlp_ratio * channels))

    def forward(self, tokens_BNC: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """Return the block's output."""
        x = tokens_BNC + scaled(self.attn(self.norm1(tokens_BNC)), first)
        return x + scaled(self.mlp(self.norm2(x)), second)


class Backbone(nn.Module):
    """The transformer: [B, 3, T, side, side] → [B, C], the normalized mean of the tokens."""

    pos_embed: Tensor

    def __init__(
        self, num_frames: int, side: int, channels: int, depth: int, num_heads: int, patch: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv3d(3, channels, (TUBELET, patch, patch), (TUBELET, patch, patch))
        num_tokens = num_frames // TUBELET * (side // patch) ** 2
        self.register_buffer("pos_embed", sinusoid(num_tokens, channels), persistent=False)
        self.blocks = Blocks(Block(channels, num_heads, mlp_ratio) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(channels, NORM_EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        fan_in = math.prod(self.patch_embed.weight.shape[1:])
        nn.init.trunc_normal_(self.patch_embed.weight, std=fan_in**-0.5)

    def forward(self, x_BCTHW: Tensor, scales: Scales) -> Tensor:
        """Return the pooled features."""
        tokens_BNC = self.patch_embed(x_BCTHW).flatten(2).transpose(1, 2) + self.pos_embed.to(x_BCTHW.dtype)
        pooled: Tensor = self.fc_norm(self.blocks(tokens_BNC, scales).mean(dim=1))
        return pooled


class VideoViT(VideoClassifier):
    """VideoMAE's vision transformer, bound to one number of frames and one size of them. The defaults are ViT-S/16."""

    backbone: Backbone

    def __init__(  # noqa: PLR0913 - the sizes of one network
        self,
        options: HeadOptions,
        num_frames: int = 16,
        *,
        side: int = 224,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        patch: int = PATCH,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
    ) -> None:
        if num_frames % TUBELET:
            raise ValueError(f"a token sees {TUBELET} frames, which does not divide {num_frames} frames")
        if side % patch:
            raise ValueError(f"patches of {patch} pixels do not divide frames of {side}")
        backbone = Backbone(num_frames, side, width, depth, num_heads, patch, mlp_ratio)
        super().__init__(backbone, num_frames, width, 1, options)
        self.side = side
        self.drop_path_rates = tuple(rate for rate in linear_rates(drop_path, depth) for _ in range(2))

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:
        """Return the features [B, 1, C]."""
        if frames_BTCHW.shape[3:] != (self.side, self.side):
            raise ValueError(f"frames of {tuple(frames_BTCHW.shape[3:])} pixels must have {self.side}×{self.side}")
        scales = scales or [None] * len(self.drop_path_rates)
        features_BC: Tensor = self.backbone(frames_BTCHW.transpose(1, 2), scales)
        return features_BC[:, None]
