"""Which points of the pyramid learn which actions. Needs torch alone.

Shapes: P points of all levels, N actions of a video, K classes. Times are in grid units: positions of the features.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

CENTER_RADIUS = 1.5  # strides from an action's middle within which points take it
TIE = 1e-3  # actions whose lengths differ by no more share their points
FIRST_RANGE = (
    4.0  # grid units to the farther end, up to which the first level takes actions; it doubles from level to level
)


class Points(NamedTuple):
    """Where the points are: position [P] in grid units, the stride of their level [P], and the range [P] of distances to the
    farther end of an action that they take."""

    position_P: Tensor
    stride_P: Tensor
    low_P: Tensor
    high_P: Tensor

    @classmethod
    def of_levels(cls, lengths: Sequence[int], device: torch.device | None = None) -> Self:
        """Return the points of levels with so many positions each: point j of level l is at j·2^l."""
        positions, strides, lows, highs = [], [], [], []
        for level, length in enumerate(lengths):
            stride, high = float(2**level), FIRST_RANGE * 2**level
            positions.append(torch.arange(length, device=device) * stride)
            strides.append(torch.full((length,), stride, device=device))
            lows.append(torch.full((length,), 0.0 if level == 0 else high / 2, device=device))
            highs.append(torch.full((length,), high if level < len(lengths) - 1 else torch.inf, device=device))
        return cls(*(torch.cat(parts) for parts in (positions, strides, lows, highs)))


class Targets(NamedTuple):
    """What the points of one video should say.

    `classes` [P, K]: 1 where a point is inside of an action of the class that it takes. `offsets`: distance to the action's
    start and end in strides of the level, [P, 2], or [P, K, 2] of each class by itself; meaningless where `is_positive` [P] or
    [P, K] is false.
    """

    classes: Tensor
    offsets: Tensor
    is_positive: Tensor


def assign_targets(
    segments_N2: Tensor, labels_N: Tensor, points: Points, num_classes: int = 52, *, per_class: bool = False
) -> Targets:
    """Return the targets of a video's actions: start and end [N, 2] in grid units, and class [N].

    A point takes an action if it lies inside of it, within 1.5 strides of its middle, and the farther end is within the level's
    range. Of several it takes the shortest; with `per_class`, of each class by itself.
    """
    P, N = len(points.position_P), len(labels_N)
    if N == 0:
        shape = (P, num_classes) if per_class else (P,)
        empty = segments_N2.new_zeros((*shape, 2))
        nowhere = torch.zeros(shape, dtype=torch.bool, device=empty.device)
        return Targets(segments_N2.new_zeros((P, num_classes)), empty, nowhere)
    length_PN, offsets_PN2 = _candidates(segments_N2, points)
    class_NK = functional.one_hot(labels_N, num_classes).to(segments_N2.dtype)
    if per_class:
        length_PKN = length_PN[:, None].masked_fill(class_NK.T[None] == 0, torch.inf)
        shortest_PK, index_PK = length_PKN.min(dim=2)
        is_positive = shortest_PK.isfinite()
        offsets = offsets_PN2.gather(1, index_PK[..., None].expand(-1, -1, 2))
        return Targets(is_positive.to(segments_N2.dtype), offsets, is_positive)
    shortest_P, index_P = length_PN.min(dim=1)
    takes_PN = (length_PN <= shortest_P[:, None] + TIE) & length_PN.isfinite()
    classes_PK = (takes_PN.to(segments_N2.dtype) @ class_NK).clamp(max=1)
    offsets_P2 = offsets_PN2[torch.arange(P, device=index_P.device), index_P]
    return Targets(classes_PK, offsets_P2, takes_PN.any(dim=1))


def dense_targets(segments_N2: Tensor, labels_N: Tensor, num_steps: int, num_classes: int = 52) -> Tensor:
    """Return which classes' actions last at the middle of each step [T, K], as 0 or 1; arguments as of `assign_targets`."""
    position_T = torch.arange(num_steps, device=segments_N2.device)
    is_inside_TN = (segments_N2[:, 0] <= position_T[:, None]) & (position_T[:, None] < segments_N2[:, 1])
    class_NK = functional.one_hot(labels_N, num_classes).to(segments_N2.dtype)
    return (is_inside_TN.to(segments_N2.dtype) @ class_NK).clamp(max=1)


def _candidates(segments_N2: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Return the length [P, N] of each action that a point may take, infinite for others, and the offsets [P, N, 2]."""
    position_P1, stride_P1 = points.position_P[:, None], points.stride_P[:, None]
    start_N, end_N = segments_N2.T
    left_PN, right_PN = position_P1 - start_N, end_N - position_P1
    middle_N = (start_N + end_N) / 2
    from_PN = torch.maximum(middle_N - CENTER_RADIUS * stride_P1, start_N)
    to_PN = torch.minimum(middle_N + CENTER_RADIUS * stride_P1, end_N)
    is_inside_PN = torch.minimum(position_P1 - from_PN, to_PN - position_P1) > 0
    farther_PN = torch.maximum(left_PN, right_PN)
    is_in_range_PN = (farther_PN >= points.low_P[:, None]) & (farther_PN <= points.high_P[:, None])
    length_PN = (end_N - start_N).expand_as(left_PN).masked_fill(~(is_inside_PN & is_in_range_PN), torch.inf)
    return length_PN, torch.stack([left_PN, right_PN], dim=2) / stride_P1[..., None]
