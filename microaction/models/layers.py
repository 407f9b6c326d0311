"""Parts that several networks share. Needs torch alone.

Shapes: B clips, N tokens, C channels, L residual branches.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Scales = Sequence[Tensor | None]
"""Stochastic depth: a factor [B] for each residual branch of a network, 0 or 1/(1 − rate), or None for 1."""


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def store_channels_last(model: nn.Module) -> None:
    """Store the weights of convolutions in the order in which devices compute them fastest."""
    for parameter in model.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.ndim])


def scaled(branch: Tensor, scale_B: Tensor | None) -> Tensor:
    """Return a residual branch [B, …] times its factor of stochastic depth."""
    if scale_B is None:
        return branch
    return branch * scale_B.to(branch.dtype).view(-1, *[1] * (branch.ndim - 1))


def linear_rates(maximum: float, num_blocks: int) -> list[float]:
    """Return the rates of stochastic depth of a network's blocks, growing linearly from 0 to `maximum`."""
    return [maximum * number / max(1, num_blocks - 1) for number in range(num_blocks)]


class Attention(nn.Module):
    """Multi-head self-attention over tokens [B, N, C]."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens_BNC: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the attended tokens. `bias`, broadcast to [B, heads, N, N], is added to the scores."""
        query, key, value = split_heads(self.qkv(tokens_BNC), self.num_heads)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return joined


def split_heads(qkv_BN3C: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each [B, heads, N, C/heads], of their concatenation [B, N, 3·C]."""
    B, N, C3 = qkv_BN3C.shape
    qkv = qkv_BN3C.reshape(B, N, 3, num_heads, C3 // (3 * num_heads))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    return query, key, value


class Mlp(nn.Module):
    """Linear → GELU → Linear over the last dimension."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Blocks(nn.ModuleList):
    """Blocks one after the other, each called with the features and its two factors of stochastic depth.

    With `is_checkpointed`, training keeps the blocks' inputs alone and computes the rest again in the backward pass.
    """

    is_checkpointed = False

    def forward(self, x: Tensor, scales: Scales) -> Tensor:
        """Return the last block's output; `scales` has two entries for each block."""
        for block, first, second in zip(self, scales[::2], scales[1::2], strict=True):
            if self.is_checkpointed and self.training:
                x = checkpoint(block, x, first, second, use_reentrant=False)
            else:
                x = block(x, first, second)
        return x
