"""Which statistics batch norms use in training: those of each worker's clips, of the whole global batch, or fixed ones."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

BatchNormMode = Literal["local", "sync", "frozen"]


class _Frozen(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base class of torch's batch norms
    """Batch norm that uses its running statistics in training too and never changes them; weight and bias are trained."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalize by the running statistics."""
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """Frozen batch norm of features [B, C, H, W]."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """Frozen batch norm of features [B, C, T, H, W]."""


def convert_batch_norms(model: nn.Module, mode: BatchNormMode, device: torch.device) -> None:
    """Replace the network's batch norms in place; names, weights and statistics stay, so state dicts still fit."""
    is_alone = not dist.is_initialized() or dist.get_world_size() == 1
    if mode == "local" or (mode == "sync" and is_alone):
        return
    for name, child in model.named_children():
        if not isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
            convert_batch_norms(child, mode, device)
        elif mode == "sync" and device.type == "cuda":
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        else:
            is_3d = isinstance(child, nn.BatchNorm3d)
            kind = (FrozenBatchNorm3d if is_3d else FrozenBatchNorm2d) if mode == "frozen" else _synchronized(is_3d)
            converted = kind(child.num_features, child.eps, child.momentum)
            converted.load_state_dict(child.state_dict())
            setattr(model, name, converted.to(child.weight.device))


def _synchronized(is_3d: bool) -> type[nn.BatchNorm2d | nn.BatchNorm3d]:
    """Import the class where it is needed: it imports torch's compiler, which takes a second of every worker's start."""
    from microaction.training.sync_batch_norm import SyncBatchNorm2d, SyncBatchNorm3d

    return SyncBatchNorm3d if is_3d else SyncBatchNorm2d
