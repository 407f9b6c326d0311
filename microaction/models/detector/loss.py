"""The detector's loss: focal over classes, DIoU over boundaries. Needs torch alone.

Shapes: B videos, P points, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.detector.network import DetectorOutputs
from microaction.models.detector.targets import Targets

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
MOMENTUM, FIRST_NORMALIZER = 0.9, 100.0  # of the running number of positives
TINY = 1e-8


class LossTerms(NamedTuple):
    """The loss and its two parts, all divided by the normalizer."""

    total: Tensor
    classification: Tensor
    regression: Tensor


class DetectionLoss(nn.Module):
    """The loss of batches one after the other: its sums are divided by a running mean of how many points are positive, which is
    part of its state."""

    normalizer: Tensor

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("normalizer", torch.tensor(FIRST_NORMALIZER))

    def forward(self, outputs: DetectorOutputs, targets: Sequence[Targets]) -> LossTerms:
        """Return the loss of a batch, with the targets of each video. In training mode the running mean moves first."""
        if self.training:
            self.count(sum(num_positive(each, outputs.mask[row]) for row, each in enumerate(targets)))
        return detection_loss(outputs, targets, float(self.normalizer), label_smoothing=self.label_smoothing)

    def count(self, num_positive: int) -> None:
        """Move the running mean to the number of positive points of a batch."""
        self.normalizer.mul_(MOMENTUM).add_((1 - MOMENTUM) * max(num_positive, 1))


def detection_loss(
    outputs: DetectorOutputs, targets: Sequence[Targets], normalizer: float, *, label_smoothing: float = 0.0
) -> LossTerms:
    """Return the loss of a batch: focal loss over all points inside of the videos and all classes, and distance-IoU loss over
    positive ones, each summed and divided by `normalizer`."""
    classes_BPK = torch.stack([each.classes for each in targets])
    is_positive = torch.stack([each.is_positive for each in targets])
    num_classes = classes_BPK.shape[2]
    smooth_BPK = classes_BPK * (1 - label_smoothing) + label_smoothing / (num_classes + 1)
    classification = focal_loss(outputs.logits[outputs.mask], smooth_BPK[outputs.mask]) / normalizer
    is_real = outputs.mask if is_positive.ndim == 2 else outputs.mask[..., None]
    chosen = is_positive & is_real
    expected = torch.stack([each.offsets for each in targets])[chosen]
    regression = diou_loss(outputs.offsets[chosen], expected) / normalizer
    return LossTerms(classification + regression, classification, regression)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of the focal losses (Lin et al. 2017) of sigmoids."""
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    right = probability * targets + (1 - probability) * (1 - targets)
    weight = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    loss: Tensor = (weight * cross_entropy * (1 - right) ** GAMMA).sum()
    return loss


def diou_loss(found_N2: Tensor, expected_N2: Tensor) -> Tensor:
    """Return the sum of 1 − IoU + (distance of the middles / hull)² of segments, as distances to a point inside of both."""
    overlap_N = torch.minimum(found_N2, expected_N2).sum(dim=1)
    union_N = found_N2.sum(dim=1) + expected_N2.sum(dim=1) - overlap_N
    hull_N = torch.maximum(found_N2, expected_N2).sum(dim=1)
    middles_N = (found_N2[:, 1] - found_N2[:, 0] - expected_N2[:, 1] + expected_N2[:, 0]) / 2
    loss_N = 1 - overlap_N / union_N.clamp(min=TINY) + (middles_N / hull_N.clamp(min=TINY)).square()
    loss: Tensor = loss_N.sum()
    return loss


def dense_loss(logits_BTK: Tensor, mask_BT: Tensor, targets_BTK: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of all classes at the steps inside of the videos."""
    loss: Tensor = functional.binary_cross_entropy_with_logits(
        logits_BTK[mask_BT], targets_BTK[mask_BT], reduction="sum"
    )
    return loss


def num_positive(targets: Targets, mask_P: Tensor) -> int:
    """Return the number of points of one video that take an action, of each class by itself where classes have boundaries."""
    is_positive = targets.is_positive
    return int((is_positive & (mask_P if is_positive.ndim == 1 else mask_P[:, None])).sum())
