"""A golden input and output: whether a checkpoint computes here what it computed when it was registered.

Pixels that are always the same go through preprocessing, network and temperature, in float32 on the CPU. Changed weights, code
that computes something else and libraries that behave differently all show as other logits.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from microaction.models.normalize import normalize_frames

if TYPE_CHECKING:
    from microaction.models.checkpoint import Checkpoint, CheckpointConfig

GOLDEN_FILE = "golden.safetensors"
TOLERANCE = 1e-3  # of the largest logit; float32 on other processors differs by 1e-5
PATCH = 16
DETECTOR_STEPS = 32
SEED = 0


def make_golden(checkpoint: "Checkpoint") -> bytes:
    """Return a safetensors file of `frames` [1, T, H, W, 3] (uint8), for networks that see skeletons of `keypoints`
    [1, 1, T, K, 3], and the `logits` [1, K] that the checkpoint, on the CPU, gives for them, divided by its temperature; of
    detectors those of all points and steps, one after the other."""
    tensors = {"frames": golden_frames(checkpoint.config)}
    if checkpoint.config.num_pose_sampled:
        tensors["keypoints"] = golden_keypoints(checkpoint.config)
    logits_BK = _logits(checkpoint, tensors)
    return bytes(safetensors.torch.save(tensors | {"logits": logits_BK}))


def golden_difference(checkpoint: "Checkpoint", golden: bytes) -> float:
    """Return the largest difference of the checkpoint's logits, on the CPU, from the golden ones, as a fraction of the largest
    of those.

    Raises `ValueError` where `golden` is not such a file, or belongs to a network of another shape.
    """
    try:
        tensors = safetensors.torch.load(golden)
        expected_BK = tensors["logits"]
        found_BK = _logits(checkpoint, tensors)
        return float((found_BK - expected_BK).abs().max() / expected_BK.abs().max().clamp(min=1e-6))
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"no golden input and output for this network: {error}") from error


@torch.inference_mode()
def _logits(checkpoint: "Checkpoint", tensors: dict[str, Tensor]) -> Tensor:
    if checkpoint.config.task == "recognition":
        return checkpoint.logits(tensors["frames"], tensors.get("keypoints"))
    from microaction.models.detector import DetectionInputs

    frames = normalize_frames(tensors["frames"], checkpoint.config.preprocessing)
    outputs: Any = checkpoint.model(DetectionInputs((frames.shape[1],), frames_BTCHW=frames))
    return torch.cat([outputs.logits.flatten(1), outputs.dense.flatten(1)], dim=1)


def golden_frames(config: "CheckpointConfig") -> Tensor:
    """Return frames [1, T, H, W, 3] (uint8) of a network's size: coarse noise under fine noise, different in each frame."""
    num_frames, side = config.num_sampled, config.preprocessing.side
    if config.task == "detection":
        num_frames = DETECTOR_STEPS
    rng = np.random.default_rng(SEED)
    cells = -(-side // PATCH)
    coarse = rng.integers(0, 224, (num_frames, cells, cells, 3)).repeat(PATCH, 1).repeat(PATCH, 2)[:, :side, :side]
    return torch.from_numpy((coarse + rng.integers(0, 32, coarse.shape)).astype(np.uint8)[None])


def golden_keypoints(config: "CheckpointConfig") -> Tensor:
    """Return the keypoints [1, 1, T, K, 3] (float32) of one person: places and scores at random, different in each frame."""
    num_keypoints = getattr(config.model, "num_keypoints", 0)
    shape = (1, 1, config.num_pose_sampled, num_keypoints, 1)
    rng = np.random.default_rng(SEED + 1)
    places = rng.random((*shape[:-1], 2)) * config.preprocessing.side
    return torch.from_numpy(np.concatenate([places, rng.random(shape)], axis=-1).astype(np.float32))
