"""A checkpoint as labeling runs it: windows in, calibrated probabilities out.

Shapes: N frames, W windows, T frames of a window, B windows of a batch, H height, W width, K actions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from microaction.models.checkpoint import Checkpoint, CheckpointConfig
from microaction.models.families import family_of
from microaction.models.inference import compiled
from microaction.models.views import Views


@dataclass(frozen=True)
class Execution:
    """How a device runs the network. Each way rounds differently: labels that must be equal are computed in one way."""

    precision: Literal["bf16", "fp32"]
    is_compiled: bool


class Classifier:
    """A checkpoint's calibrated probabilities of windows, always in batches of one size.

    The size of a batch decides how sums are rounded, and a compiled network takes one size only: the last batch is filled up
    with its last window, so that a window's probabilities never depend on the other windows of its batch.
    """

    def __init__(self, checkpoint: Checkpoint, execution: Execution, batch_size: int) -> None:
        config = checkpoint.config
        self.device = next(checkpoint.model.parameters()).device
        self._temperature, self.batch_size = config.temperature, batch_size
        self._sees_keypoints = config.num_pose_sampled > 0
        self.num_classes = config.model.num_classes
        self._copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        dtype = torch.bfloat16 if execution.precision == "bf16" else torch.float32
        fast = family_of(config.model).for_inference(checkpoint.model, config.preprocessing, dtype)
        model = Views(fast, config.preprocessing.views)
        self._logits = compiled(model) if execution.is_compiled else model
        crop, T = config.preprocessing.side, config.num_sampled
        # Compiles and warms up.
        self(
            torch.zeros(1, crop, crop, 3, dtype=torch.uint8), torch.zeros(1, T, dtype=torch.int64), no_keypoints(config)
        )

    @torch.inference_mode()
    def __call__(self, frames_NHWC: Tensor, windows_WT: Tensor, keypoints_WMTK3: Tensor | None = None) -> Tensor:
        """Return probabilities [W, K] (float32, on the CPU) of windows, each T rows of `frames_NHWC` (uint8), and for networks
        that see skeletons their keypoints (float32). W may be 0."""
        W, B = len(windows_WT), self.batch_size
        batches = []
        for start in range(0, W, B):
            chosen = torch.arange(start, start + B).clamp(max=W - 1)
            inputs = [self._gathered(frames_NHWC, windows_WT[chosen])]
            if self._sees_keypoints:
                assert keypoints_WMTK3 is not None, "the decode stage gives them to networks that see skeletons"
                inputs.append(keypoints_WMTK3[chosen].to(self.device))
            batches.append(self._logits(*inputs).clone())
        if not batches:
            return torch.empty(0, self.num_classes)
        return (torch.cat(batches)[:W] / self._temperature).softmax(dim=1).cpu()

    def _gathered(self, frames_NHWC: Tensor, windows_BT: Tensor) -> Tensor:
        """Return a batch's frames [B, T, H, W, 3] on the device, each of them moved once.

        To a GPU they are copied on a separate stream while the network runs on the previous batch: calls only queue work
        there, and nothing waits before the last batch's results are fetched.
        """
        if self._copies is None:
            return frames_NHWC[windows_BT]
        first, last = int(windows_BT.min()), int(windows_BT.max())
        with torch.cuda.stream(self._copies):
            moved = [
                tensor.pin_memory().to(self.device, non_blocking=True)
                for tensor in (frames_NHWC[first : last + 1], windows_BT - first)
            ]
        network = torch.cuda.current_stream(self.device)
        network.wait_stream(self._copies)
        for tensor in moved:
            tensor.record_stream(network)  # its memory is free for the next copy only when the network has read it
        frames, indices = moved
        return frames[indices]


def no_keypoints(config: CheckpointConfig, num_windows: int = 1) -> Tensor:
    """Return keypoints [W, 1, T, K, 3] of windows in which nobody was found."""
    return torch.zeros(num_windows, 1, config.num_pose_sampled, getattr(config.model, "num_keypoints", 0), 3)


def is_available(device_type: str) -> bool:
    """Return whether torch can use such a device on this node."""
    return device_type == "cpu" or torch.cuda.is_available()


def preferred_precision(device_type: str) -> Literal["bf16", "fp32"]:
    """Return bf16 where this node's device multiplies it faster than float32."""
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has_products = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return "bf16" if has_products else "fp32"
