"""Batch norm over the clips of all workers on CPUs, where torch's own `SyncBatchNorm`, for GPUs alone, does not work."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Synchronized(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base class of torch's batch norms
    """Batch norm [B, C, …] by the statistics of all workers' inputs together."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalize by the statistics of all workers' inputs."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        num_channels = x.shape[1]
        others = [dim for dim in range(x.ndim) if dim != 1]
        shape = [num_channels] + [1] * (x.ndim - 2)
        num_own = x.new_tensor([x.numel() / num_channels])
        totals = _sum_over_processes(torch.cat([num_own, x.sum(dim=others)]))
        num, mean_C = totals[0].detach(), totals[1:] / totals[0].detach()
        centered = x - mean_C.view(shape)
        var_C = _sum_over_processes(centered.square().sum(dim=others)) / num
        self._update_statistics(mean_C.detach(), var_C.detach() * num / (num - 1))
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return (centered * scale_C.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _update_statistics(self, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_var_C, self.momentum)
        self.num_batches_tracked += 1


class SyncBatchNorm2d(_Synchronized, nn.BatchNorm2d):
    """Batch norm of features [B, C, H, W] by the statistics of all workers' inputs together."""


class SyncBatchNorm3d(_Synchronized, nn.BatchNorm3d):
    """Batch norm of features [B, C, T, H, W] by the statistics of all workers' inputs together."""


class _Sum(torch.autograd.Function):
    """All-reduce in both directions: every worker has the sum, so a gradient is the sum of all workers' gradients too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004 - the interface
        """Return the sum over all workers."""
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - the interface
        """Return the sum of all workers' gradients."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(own: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(own))  # type: ignore[no-untyped-call]
