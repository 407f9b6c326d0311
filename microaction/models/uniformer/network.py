"""UniFormer: convolutions in the first two stages, attention over all tokens in the last two. Needs torch alone.

Shapes: B clips, C channels, T frames, H height and W width in tokens, N tokens.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatial-Temporal Representation Learning", ICLR 2022; layers and
names as in mmaction2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.layers import Attention, Blocks, Mlp, Scales, linear_rates, scaled
from microaction.models.video_classifier import HeadOptions, VideoClassifier

MLP_RATIO = 4
NUM_LOCAL_STAGES = 2
INIT_STD = 0.02


class PatchEmbedding(nn.Module):
    """A convolution with a stride, and a LayerNorm over the channels."""

    def __init__(self, in_channels: int, channels: int, *, is_first: bool) -> None:
        super().__init__()
        self.proj = (
            nn.Conv3d(in_channels, channels, (3, 4, 4), (2, 4, 4), padding=(1, 0, 0))
            if is_first
            else nn.Conv3d(in_channels, channels, (1, 2, 2), (1, 2, 2))
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the embedded features."""
        x: Tensor = self.norm(self.proj(x_BCTHW).permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return x


class ConvMlp(nn.Module):
    """`layers.Mlp` on features [B, C, T, H, W]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, hidden, 1)
        self.fc2 = nn.Conv3d(hidden, channels, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return features of the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x_BCTHW)))
        return out


class LocalBlock(nn.Module):
    """Relations of a token to its 5×5×5 neighbors, by convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm1: nn.Module = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 1)
        self.attn = nn.Conv3d(channels, channels, 5, padding=2, groups=channels)
        self.conv2 = nn.Conv3d(channels, channels, 1)
        self.norm2: nn.Module = nn.BatchNorm3d(channels)
        self.mlp = ConvMlp(channels, MLP_RATIO * channels)

    def forward(self, x_BCTHW: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """Return the block's output."""
        x = x_BCTHW + self.pos_embed(x_BCTHW)
        x = x + scaled(self.conv2(self.attn(self.conv1(self.norm1(x)))), first)
        out: Tensor = x + scaled(self.mlp(self.norm2(x)), second)
        return out

    def fold(self) -> None:
        """Fold the batch norms into the 1×1×1 convolutions after them."""
        for norm, convolution in ((self.norm1, self.conv1), (self.norm2, self.mlp.fc1)):
            fold_norm_before(norm, convolution)
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()


def fold_norm_before(norm: nn.Module, convolution: nn.Conv3d) -> None:
    """Change a 1×1×1 convolution so that it computes what a batch norm in evaluation mode and itself did."""
    assert isinstance(norm, nn.BatchNorm3d)
    assert convolution.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift_C = norm.bias - norm.running_mean * scale_C
    weight_OC = convolution.weight.flatten(1)
    with torch.no_grad():
        convolution.bias += weight_OC @ shift_C
        convolution.weight *= scale_C[None, :, None, None, None]


class GlobalBlock(nn.Module):
    """Self-attention over all tokens of a clip."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, MLP_RATIO * channels)

    def forward(self, x_BCTHW: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """Return the block's output."""
        x = x_BCTHW + self.pos_embed(x_BCTHW)
        tokens_BNC = x.flatten(2).transpose(1, 2)
        tokens_BNC = tokens_BNC + scaled(self.attn(self.norm1(tokens_BNC)), first)
        tokens_BNC = tokens_BNC + scaled(self.mlp(self.norm2(tokens_BNC)), second)
        out: Tensor = tokens_BNC.transpose(1, 2).reshape(x.shape)
        return out


class Backbone(nn.Module):
    """The four stages: [B, 3, T, H, W] → [B, C], the mean over the tokens."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], head_width: int) -> None:
        super().__init__()
        in_channels = 3
        for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            self.add_module(f"patch_embed{stage}", PatchEmbedding(in_channels, channels, is_first=stage == 1))
            if stage <= NUM_LOCAL_STAGES:
                self.add_module(f"blocks{stage}", nn.ModuleList(LocalBlock(channels) for _ in range(depth)))
            else:
                num_heads = channels // head_width
                self.add_module(f"blocks{stage}", Blocks(GlobalBlock(channels, num_heads) for _ in range(depth)))
            in_channels = channels
        self.depths = tuple(depths)
        self.norm = nn.BatchNorm3d(in_channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, x_BCTHW: Tensor, scales: Scales) -> Tensor:
        """Return the pooled features."""
        x, used = x_BCTHW, 0
        for stage, depth in enumerate(self.depths, start=1):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            blocks, own = self.get_submodule(f"blocks{stage}"), scales[used : used + 2 * depth]
            if isinstance(blocks, Blocks):
                x = blocks(x, own)
            else:
                assert isinstance(blocks, nn.ModuleList)
                for block, first, second in zip(blocks, own[::2], own[1::2], strict=True):
                    x = block(x, first, second)
            used += 2 * depth
        pooled: Tensor = self.norm(x).mean(dim=(2, 3, 4))
        return pooled


class UniFormer(VideoClassifier):
    """UniFormer for clips of any size. UniFormer-S, the defaults, has 21,221,876 parameters."""

    backbone: Backbone

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 16,
        *,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
        head_width: int = 64,
        drop_path: float = 0.1,
    ) -> None:
        if any(width % head_width for width in widths[NUM_LOCAL_STAGES:]):
            raise ValueError(f"widths of the last two stages {tuple(widths)} must be multiples of {head_width}")
        super().__init__(Backbone(widths, depths, head_width), num_frames, widths[-1], 1, options)
        self.drop_path_rates = tuple(rate for rate in linear_rates(drop_path, sum(depths)) for _ in range(2))

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:
        """Return the features [B, 1, C]."""
        scales = scales or [None] * len(self.drop_path_rates)
        features_BC: Tensor = self.backbone(frames_BTCHW.transpose(1, 2), scales)
        return features_BC[:, None]

    def fold_norms(self) -> None:
        """Fold the batch norms of local blocks into the convolutions after them. For a copy that is not trained any more."""
        for module in self.modules():
            if isinstance(module, LocalBlock):
                module.fold()
