"""Networks for tests."""

import math
from typing import TypeVar

import pytest
import torch

from microaction.models import ManetConfig, Network

AnyNetwork = TypeVar("AnyNetwork", bound=Network)

SMALL = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=12)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def randomize_weights(model: AnyNetwork, seed: int = 0) -> AnyNetwork:
    """Give all weights random values of ordinary size, where initial ones would hide most of the network behind zeros."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) / math.sqrt(value[0].numel()))
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + ("bn" in name and "weight" in name))
    return model.eval()
