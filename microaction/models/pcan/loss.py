"""PCAN's loss: two paths with five terms each, around one prototype per class. Needs torch alone.

Shapes: B clips, K classes, A actions, P body parts, D of a prototype, S kinds of ambiguous samples.

Source: Li et al. 2025 and the authors' published code. Where paper and code differ, this is the code.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from microaction.models.pcan.network import EPSILON, PCAN, PCANOutputs, Stream, StreamOutputs, cosines
from microaction.taxonomy import BODY_PART_OF

MOMENTUM = 0.9  # of the prototypes
TEMPERATURE = 0.125
CALIBRATION_WEIGHT = 1 / 5
# They scale the scores of each kind of ambiguous sample inside of its cross-entropy.
BODY_SCALES = (1.0, 1.0)  # false negatives, false positives
ACTION_SCALES = (
    1.0,
    0.1,
    0.5,
    1.0,
)  # false negatives by whether the body part is right, action wrong, or both wrong; positives


class Marks(NamedTuple):
    """Which samples are of a kind: the class under which each counts [B], and whether it does [B]."""

    class_B: Tensor
    is_member_B: Tensor
    sign: float = 1.0  # −1 for false positives, which are pushed away


class PCANLoss(nn.Module):
    """The sum of ten terms: for each path, cross-entropies of actions and body parts, their calibrations, and the tree's.

    Every call in training mode moves the prototypes of `model` towards the batch's true positives. The loss depends on the whole
    batch: with several processes, gather the outputs (with gradients) before.
    """

    def __init__(self, model: PCAN) -> None:
        super().__init__()
        self._streams = (model.rgb, model.pose)  # a tuple, so that they are not modules of the loss

    def forward(self, outputs: PCANOutputs, target_B: Tensor) -> Tensor:
        """Return the scalar loss of the outputs for targets [B] (int64)."""
        return torch.stack(list(self.terms(outputs, target_B).values())).sum()

    def terms(self, outputs: PCANOutputs, target_B: Tensor) -> dict[str, Tensor]:
        """Return the terms by name, weighted."""
        rgb, pose = (
            _stream_terms(stream, of_stream, target_B)
            for stream, of_stream in zip(self._streams, (outputs.rgb, outputs.pose), strict=True)
        )
        return {f"rgb_{name}": value for name, value in rgb.items()} | {
            f"pose_{name}": value for name, value in pose.items()
        }


def _stream_terms(stream: Stream, outputs: StreamOutputs, target_B: Tensor) -> dict[str, Tensor]:
    body_of_action = torch.tensor(BODY_PART_OF, device=target_B.device)
    body_B = body_of_action[target_B]
    action_BK, body_BP = outputs.action_logits.float(), outputs.body_logits.float()
    found_B, found_body_B = action_BK.argmax(dim=1), body_BP.argmax(dim=1)
    is_right_B, is_body_right_B = found_B == target_B, found_body_B == body_B
    body_marks = [Marks(body_B, ~is_body_right_B), Marks(found_body_B, ~is_body_right_B, -1.0)]
    action_marks = [
        Marks(target_B, ~is_right_B & is_body_right_B),
        Marks(target_B, is_right_B & ~is_body_right_B),
        Marks(target_B, ~is_right_B & ~is_body_right_B),
        Marks(found_B, ~is_right_B, -1.0),
    ]
    body_DP = moved_prototypes(stream.body_prototypes, outputs.body_features.float(), body_B, is_body_right_B)
    action_DK = moved_prototypes(
        stream.action_prototypes, outputs.action_features.float(), target_B, is_right_B & is_body_right_B
    )
    with torch.no_grad():
        stream.body_prototypes.copy_(body_DP)
        stream.action_prototypes.copy_(action_DK)
    body_calibration = calibration(body_BP, outputs.body_features.float(), body_DP, body_B, body_marks, BODY_SCALES)
    action_calibration = calibration(
        action_BK, outputs.action_features.float(), action_DK, target_B, action_marks, ACTION_SCALES
    )
    return {
        "action": functional.cross_entropy(action_BK, target_B),
        "body": functional.cross_entropy(body_BP, body_B),
        "body_calibration": CALIBRATION_WEIGHT * body_calibration,
        "action_calibration": CALIBRATION_WEIGHT * (action_calibration + diversity(action_DK)),
        "tree": tree_loss(action_BK, body_BP, target_B),
    }


def moved_prototypes(prototypes_DK: Tensor, features_BD: Tensor, class_B: Tensor, is_true_B: Tensor) -> Tensor:
    """Return the prototypes moved by a tenth towards the mean of their true positives, with gradient through that mean."""
    member_BK = functional.one_hot(class_B, prototypes_DK.shape[1]).to(features_BD.dtype) * is_true_B[:, None]
    number_K = member_BK.sum(dim=0)
    mean_DK = features_BD.T @ member_BK / number_K.clamp(min=1)
    moved_DK = MOMENTUM * prototypes_DK.clone() + (1 - MOMENTUM) * mean_DK
    return torch.where(number_K > 0, moved_DK, prototypes_DK.clone())


def calibration(
    logits_BK: Tensor,
    features_BD: Tensor,
    prototypes_DK: Tensor,
    target_B: Tensor,
    marks: list[Marks],
    scales: tuple[float, ...],
) -> Tensor:
    """Return the mean over all samples of the sum, over kinds of ambiguous samples, of cross-entropies of their scores."""
    base_BK = cosines(features_BD, prototypes_DK)
    normal_BD = features_BD / (features_BD.norm(dim=1, keepdim=True) + EPSILON)
    own_BK = functional.one_hot(target_B, logits_BK.shape[1]).to(base_BK.dtype)
    doubt_BK = TEMPERATURE * (1 - logits_BK.softmax(dim=1)) * own_BK
    loss = base_BK.new_zeros(())
    for kind, scale in zip(marks, scales, strict=True):
        member_BK = functional.one_hot(kind.class_B, logits_BK.shape[1]).to(base_BK.dtype) * kind.is_member_B[:, None]
        center_DK = features_BD.T @ member_BK
        center_DK = center_DK / (center_DK.norm(dim=0, keepdim=True) + EPSILON)
        has_members_K = member_BK.sum(dim=0) > 0
        pull_BK = doubt_BK * has_members_K * (kind.sign * (normal_BD @ center_DK) - 1)
        loss = loss + functional.cross_entropy(scale * (base_BK + pull_BK) / TEMPERATURE, target_B)
    return loss


def diversity(prototypes_DK: Tensor) -> Tensor:
    """Return the Frobenius norm of the prototypes' cosines, without gradient: a number for the log."""
    fixed_DK = prototypes_DK.detach()
    norm: Tensor = torch.linalg.norm(cosines(fixed_DK.T, fixed_DK))
    return norm


def tree_loss(action_BK: Tensor, body_BP: Tensor, target_B: Tensor) -> Tensor:
    """Return the cross-entropy over the states of the tree: a body part alone, or an action with its body part."""
    body_of_action = torch.tensor(BODY_PART_OF, device=target_B.device)
    body_BP, action_BK = body_BP.sigmoid(), action_BK.sigmoid()
    states_BS = torch.cat([body_BP, body_BP[:, body_of_action] + action_BK], dim=1)
    return functional.cross_entropy(states_BS, body_BP.shape[1] + target_B)
