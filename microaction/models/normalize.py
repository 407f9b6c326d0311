"""The last step of preprocessing, on the device: uint8 frames to the network's input. Needs torch alone."""

import torch
from torch import Tensor

from microaction.models.interface import ChannelStatistics


def normalize_frames(frames_BTHWC: Tensor, statistics: ChannelStatistics) -> Tensor:
    """Turn uint8 RGB frames [B, T, H, W, 3] into float32 [B, T, 3, H, W]: (x − mean) / std on 0..255, on the same device."""
    if frames_BTHWC.dtype != torch.uint8 or frames_BTHWC.ndim != 5 or frames_BTHWC.shape[-1] != 3:
        raise ValueError(
            f"frames of shape {tuple(frames_BTHWC.shape)} and {frames_BTHWC.dtype} must be uint8 [B, T, H, W, 3]"
        )
    mean = torch.tensor(statistics.mean, device=frames_BTHWC.device)
    std = torch.tensor(statistics.std, device=frames_BTHWC.device)
    return ((frames_BTHWC.float() - mean) / std).permute(0, 1, 4, 2, 3)
