"""Batch norm over the clips of all workers on CPUs, where torch's own `SyncBatchNorm`, for GPUs alone, does not work."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm by the statistics of all workers' inputs together. torch's own `SyncBatchNorm` does not support CPUs."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalize by the statistics of all workers' inputs."""
        if not self.training:
            return super().forward(input)
        x_FCHW = input.float()
        num_channels = x_FCHW.shape[1]
        num_own = x_FCHW.new_tensor([x_FCHW.numel() / num_channels])
        totals = _sum_over_processes(torch.cat([num_own, x_FCHW.sum(dim=(0, 2, 3))]))
        num, mean_C = totals[0].detach(), totals[1:] / totals[0].detach()
        centered_FCHW = x_FCHW - mean_C[:, None, None]
        var_C = _sum_over_processes(centered_FCHW.square().sum(dim=(0, 2, 3))) / num
        self._update_statistics(mean_C.detach(), var_C.detach() * num / (num - 1))
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return (centered_FCHW * scale_C[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _update_statistics(self, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_var_C, self.momentum)
        self.num_batches_tracked += 1


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
