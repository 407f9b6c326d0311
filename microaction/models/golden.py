"""A golden input and output: whether a checkpoint computes here what it computed when it was registered.

Pixels that are always the same go through preprocessing, network and temperature, in float32 on the CPU. Changed weights, code
that computes something else and libraries that behave differently all show as other logits.
"""

from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

if TYPE_CHECKING:
    from microaction.models.checkpoint import Checkpoint, CheckpointConfig

GOLDEN_FILE = "golden.safetensors"
TOLERANCE = 1e-3  # of the largest logit; float32 on other processors differs by 1e-5
PATCH = 16
SEED = 0


def make_golden(checkpoint: "Checkpoint") -> bytes:
    """Return a safetensors file of `frames` [1, T, H, W, 3] (uint8) and the `logits` [1, K] that the checkpoint, on the CPU,
    gives for them, divided by its temperature."""
    frames_BTHWC = golden_frames(checkpoint.config)
    return bytes(safetensors.torch.save({"frames": frames_BTHWC, "logits": checkpoint.logits(frames_BTHWC)}))


def golden_difference(checkpoint: "Checkpoint", golden: bytes) -> float:
    """Return the largest difference of the checkpoint's logits, on the CPU, from the golden ones, as a fraction of the largest
    of those.

    Raises `ValueError` where `golden` is not such a file, or belongs to a network of another shape.
    """
    try:
        tensors = safetensors.torch.load(golden)
        frames_BTHWC, expected_BK = tensors["frames"], tensors["logits"]
        found_BK = checkpoint.logits(frames_BTHWC)
        return float((found_BK - expected_BK).abs().max() / expected_BK.abs().max().clamp(min=1e-6))
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"no golden input and output for this network: {error}") from error


def golden_frames(config: "CheckpointConfig") -> Tensor:
    """Return frames [1, T, H, W, 3] (uint8) of a network's size: coarse noise under fine noise, different in each frame."""
    num_frames, side = config.num_sampled, config.preprocessing.crop
    rng = np.random.default_rng(SEED)
    cells = -(-side // PATCH)
    coarse = rng.integers(0, 224, (num_frames, cells, cells, 3)).repeat(PATCH, 1).repeat(PATCH, 2)[:, :side, :side]
    return torch.from_numpy((coarse + rng.integers(0, 32, coarse.shape)).astype(np.uint8)[None])
