"""The outputs of all workers' clips in every worker, with gradients, for losses that depend on the whole batch.

Shapes: R workers, B clips of this worker, M the most clips that a worker has, G clips of the global batch, F features.
"""

from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

AnyOutputs = TypeVar("AnyOutputs")


def gather_batch(outputs: AnyOutputs, target_B: Tensor, num_clips: int, max_clips: int) -> tuple[AnyOutputs, Tensor]:
    """Return outputs and targets of all workers' clips, the same in every worker: in the order of the global batch, in which
    worker r of R has every R-th clip from the r-th.

    `outputs` is a named tuple of tensors [B, …], of other such tuples and of None. Only the first `num_clips` of this worker
    count; no worker has more than `max_clips`. The gradient of what is computed of it reaches this worker's own clips alone.
    """
    is_alone = not dist.is_initialized() or dist.get_world_size() == 1
    if is_alone and num_clips == len(target_B):
        return outputs, target_B
    tensors = _tensors_of(outputs)
    columns_BF = torch.cat([tensor.float().flatten(1) for tensor in tensors], dim=1)
    padded_MF = columns_BF.new_zeros((max(max_clips, len(columns_BF)), columns_BF.shape[1]))
    padded_MF = torch.cat([columns_BF, padded_MF[len(columns_BF) :]])
    labels_M = target_B.new_full((len(padded_MF),), -1)
    labels_M[:num_clips] = target_B[:num_clips]
    if is_alone:
        all_RMF, labels_RM = padded_MF[None], labels_M[None]
    else:
        all_RMF = cast(Tensor, _Gather.apply(padded_MF))  # type: ignore[no-untyped-call]
        labels_RM = torch.stack(_all_gathered(labels_M))
    # Clip j of the global batch is clip j // R of worker j % R.
    labels_G = labels_RM.T.flatten()
    is_clip_G = labels_G >= 0
    all_GF = all_RMF.transpose(0, 1).flatten(0, 1)[is_clip_G]
    parts = torch.split(all_GF, [tensor[0].numel() for tensor in tensors], dim=1)
    shaped = iter([part.view(-1, *tensor.shape[1:]) for part, tensor in zip(parts, tensors, strict=True)])
    return _with_tensors(outputs, shaped), labels_G[is_clip_G]


def sum_of(outputs: object) -> Tensor:
    """Return the sum of all tensors of outputs, to which everything that computed them contributes."""
    return torch.stack([tensor.float().sum() for tensor in _tensors_of(outputs)]).sum()


def _all_gathered(own: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    return gathered


class _Gather(torch.autograd.Function):
    """All workers' tensors [R, …]. Every worker computes the same of them, so its own part of the gradient is complete."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004 - the interface
        """Return the tensors of all workers."""
        return torch.stack(_all_gathered(own.contiguous()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - the interface
        """Return the gradient of this worker's tensor."""
        return gradient[dist.get_rank()]


def _tensors_of(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [] if outputs is None else [tensor for part in outputs for tensor in _tensors_of(part)]


def _with_tensors(outputs: Any, tensors: Any) -> Any:
    if isinstance(outputs, Tensor):
        return next(tensors)
    return None if outputs is None else type(outputs)(*(_with_tensors(part, tensors) for part in outputs))
