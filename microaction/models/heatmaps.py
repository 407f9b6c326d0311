"""Heatmaps of keypoints, drawn on the device. Needs torch alone.

Shapes: B clips, M people, T frames, K keypoints, P pixels around a keypoint, S side of a heatmap.

Source: the published pipeline of PCAN (Li et al. 2025), which draws the same on the CPU, person by person.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RADIUS_IN_SIGMAS = 3
MIN_SCORE = 1e-4  # of a keypoint that counts as found


class Heat(NamedTuple):
    """How a network wants its heatmaps: their size as a fraction of the frames', and sigma in pixels of the heatmap."""

    scale: float
    sigma: float


def draw_heatmaps(keypoints_BMTK3: Tensor, frames_side: int, heat: Heat) -> Tensor:
    """Return heatmaps [B, T, K, S, S] (float32): the maximum over people of score · exp(−d² / 2σ²).

    `keypoints_BMTK3`: x and y in pixels of frames of `frames_side`×`frames_side`, and the score; float32. Each keypoint's heat
    ends at three sigmas.
    """
    B, _, T, K, _ = keypoints_BMTK3.shape
    S = round(frames_side * heat.scale)
    radius = RADIUS_IN_SIGMAS * heat.sigma
    center_BMTK2 = keypoints_BMTK3[..., :2] * heat.scale
    score_BMTK = keypoints_BMTK3[..., 2]
    # Towards zero, as the reference's conversion to whole numbers.
    first = (center_BMTK2 - radius).trunc().clamp(min=0)
    end = ((center_BMTK2 + radius).trunc() + 1).clamp(max=S)
    offsets_P = torch.arange(int(2 * radius) + 2, device=keypoints_BMTK3.device)
    pixels = first[..., None] + offsets_P  # [B, M, T, K, 2, P]
    is_inside = (pixels < end[..., None]) & (score_BMTK >= MIN_SCORE)[..., None, None]
    squared = (pixels - center_BMTK2[..., None]).square()
    value = torch.exp(-(squared[..., 0, None, :] + squared[..., 1, :, None]) / 2 / heat.sigma**2)
    value = value * score_BMTK[..., None, None]
    is_inside = is_inside[..., 0, None, :] & is_inside[..., 1, :, None]
    index = (pixels[..., 1, :, None] * S + pixels[..., 0, None, :]).long()
    # [B, T, K, people and their pixels]; what lies outside adds nothing to pixel 0.
    value = torch.where(is_inside, value, 0.0).permute(0, 2, 3, 1, 4, 5).reshape(B, T, K, -1)
    index = torch.where(is_inside, index, 0).permute(0, 2, 3, 1, 4, 5).reshape(B, T, K, -1)
    maps = keypoints_BMTK3.new_zeros((B, T, K, S * S)).scatter_reduce(3, index, value, "amax")
    return maps.view(B, T, K, S, S)
