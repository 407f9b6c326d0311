"""Networks in the form in which a device runs them fastest. Needs torch alone.

Shapes: B clips, T frames of a clip, H height, W width, K actions.
"""

import copy
import os
import shutil
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from microaction.models.inputs import prepare_inputs
from microaction.models.interface import ChannelStatistics, Inputs, Network
from microaction.models.layers import store_channels_last
from microaction.models.normalize import normalize_frames
from microaction.models.video_classifier import VideoClassifier


class PlainInferenceModel(nn.Module):
    """Logits [B, K] (float32) of uint8 RGB frames [B, T, H, W, 3], and keypoints [B, M, T, K, 3] for networks that see them: the
    network itself, as a copy in `dtype`.

    For families without a faster form of their own.
    """

    def __init__(self, model: Network, statistics: ChannelStatistics, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.statistics, self.dtype = statistics, dtype
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(dtype)

    def forward(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Tensor:
        """Return the logits."""
        inputs = prepare_inputs(self.model, frames_BTHWC, keypoints_BMTK3, self.statistics)
        heatmaps_BTKHW = inputs.heatmaps_BTKHW
        inputs = Inputs(
            inputs.frames_BTCHW.to(self.dtype), None if heatmaps_BTKHW is None else heatmaps_BTKHW.to(self.dtype)
        )
        return cast(Tensor, self.model(inputs).logits.float())


class InferenceModel(nn.Module):
    """Logits [B, K] (float32) of uint8 RGB frames [B, T, H, W, 3]: those of `model` in evaluation mode, faster.

    A copy of the weights in `dtype`, which bfloat16 rounds to 8 bits. Batch norms are folded into the convolutions next to them,
    memory is channels-last, the embedding branch is left out, and the linear heads see the mean of a clip's parts instead of
    every part; they stay in float32.
    """

    def __init__(
        self, model: VideoClassifier, statistics: ChannelStatistics, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        super().__init__()
        self.statistics, self.dtype = statistics, dtype
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.model.embedding = None
        self.model.fold_norms()
        self.model.to(dtype)
        for head in (self.model.action, self.model.body):
            if head is not None:
                head.float()
        store_channels_last(self.model)
        self.eval()

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return the logits."""
        frames_BTCHW = normalize_frames(frames_BTHWC, self.statistics).to(self.dtype)
        features_BFC = self.model.features(frames_BTCHW).float().mean(dim=1, keepdim=True)
        return self.model.classify(features_BFC).logits


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model as one graph with its weights as constants, for `torch.inference_mode`.

    The first call with frames of a new shape compiles, which takes a minute or more: use batches of one size.
    """
    device = next(model.parameters()).device
    options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}
    if device.type == "cuda":
        options |= {"triton.cudagraphs": True, "max_autotune": True}
    return cast(Callable[[Tensor], Tensor], torch.compile(model, dynamic=False, fullgraph=True, options=options))


def can_compile(device_type: str) -> bool:
    """Return whether this node has the compiler that compiling a network needs: C++ for "cpu", C for "cuda" (Triton)."""
    variable, names = ("CXX", ("c++", "g++", "clang++")) if device_type == "cpu" else ("CC", ("gcc", "clang"))
    return any(shutil.which(name) for name in (os.environ.get(variable, ""), *names) if name)
