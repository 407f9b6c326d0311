"""TimeSformer with divided attention: over time for each patch, then over space in each frame. Needs torch alone.

Shapes: B clips, T frames, P patches of a frame, N tokens, C channels.

Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021; layers as in mmaction2.
"""

import torch
from torch import Tensor, nn

from microaction.models.layers import Attention, Blocks, Mlp, Scales, linear_rates, scaled
from microaction.models.video_classifier import HeadOptions, VideoClassifier

PATCH = 16
MLP_RATIO = 4
NORM_EPSILON = 1e-6
INIT_STD = 0.02


class DividedBlock(nn.Module):
    """Attention over time, attention over space, and an MLP, on a class token and P·T patches, time fastest."""

    def __init__(self, channels: int, num_heads: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.time_norm = nn.LayerNorm(channels, NORM_EPSILON)
        self.time_attn = Attention(channels, num_heads)
        self.time_fc = nn.Linear(channels, channels)
        self.space_norm = nn.LayerNorm(channels, NORM_EPSILON)
        self.space_attn = Attention(channels, num_heads)
        self.norm = nn.LayerNorm(channels, NORM_EPSILON)
        self.mlp = Mlp(channels, MLP_RATIO * channels)

    def forward(self, tokens_BNC: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """Return the block's output. `first` scales both attentions, `second` the MLP."""
        class_B1C, patches = tokens_BNC[:, :1], tokens_BNC[:, 1:]
        B, T = len(tokens_BNC), self.num_frames
        C = tokens_BNC.shape[2]
        x_STC = self.time_norm(patches).reshape(-1, T, C)
        patches = patches + scaled(self.time_fc(self.time_attn(x_STC)).reshape(patches.shape), first)
        # Every frame has a copy of the class token; the mean of what the copies become is added to it.
        by_frame = patches.reshape(B, -1, T, C).transpose(1, 2)
        copies = class_B1C[:, None].expand(-1, T, -1, -1)
        x_FNC = self.space_norm(torch.cat([copies, by_frame], dim=2)).flatten(0, 1)
        attended = self.space_attn(x_FNC).unflatten(0, (B, T))
        class_B1C = class_B1C + scaled(attended[:, :, :1].mean(dim=1), first)
        patches = patches + scaled(attended[:, :, 1:].transpose(1, 2).flatten(1, 2), first)
        x = torch.cat([class_B1C, patches], dim=1)
        return x + scaled(self.mlp(self.norm(x)), second)


class Backbone(nn.Module):
    """The transformer: [B, T, 3, side, side] → the class token [B, C]."""

    def __init__(self, num_frames: int, side: int, channels: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, channels, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // PATCH) ** 2, channels))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, channels))
        self.blocks = Blocks(DividedBlock(channels, num_heads, num_frames) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, NORM_EPSILON)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, DividedBlock)
            nn.init.zeros_(block.time_fc.weight)

    def forward(self, frames_BTCHW: Tensor, scales: Scales) -> Tensor:
        """Return the class token after the last block."""
        B, T = frames_BTCHW.shape[:2]
        patches_FPC = self.patch_embed(frames_BTCHW.flatten(0, 1)).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        patches = patches_FPC.unflatten(0, (B, T)).transpose(1, 2) + self.time_embed[:, None]
        class_B1C = (self.cls_token + self.pos_embed[:, :1]).expand(B, -1, -1)
        tokens = torch.cat([class_B1C, patches.flatten(1, 2)], dim=1)
        tokens = self.blocks(tokens, scales)
        class_BC: Tensor = self.norm(tokens[:, 0])
        return class_BC


class TimeSformer(VideoClassifier):
    """TimeSformer with divided attention, bound to one number of frames and one size of them.

    The defaults are ViT-B/16 and have 121,298,740 parameters.
    """

    backbone: Backbone

    def __init__(
        self,
        options: HeadOptions,
        num_frames: int = 8,
        *,
        side: int = 224,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        drop_path: float = 0.1,
    ) -> None:
        backbone = Backbone(num_frames, side, width, depth, num_heads)
        super().__init__(backbone, num_frames, width, 1, options)
        self.side = side
        self.drop_path_rates = tuple(rate for rate in linear_rates(drop_path, depth) for _ in range(2))

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:
        """Return the features [B, 1, C]."""
        if frames_BTCHW.shape[3:] != (self.side, self.side):
            raise ValueError(f"frames of {tuple(frames_BTCHW.shape[3:])} pixels must have {self.side}×{self.side}")
        scales = scales or [None] * len(self.drop_path_rates)
        features_BC: Tensor = self.backbone(frames_BTCHW, scales)
        return features_BC[:, None]
