"""What the networks that classify clips have in common: a backbone, dropout and the heads on its features. Needs torch alone.

Shapes: B clips, T frames of a clip, F parts of a clip that the heads see one by one (its frames, or 1), C features, K actions, P
body parts, D embedding, L residual branches.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from microaction.models.interface import Inputs, Network, Outputs
from microaction.models.layers import Blocks, Scales
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

HeadKind = Literal["plain", "hierarchical"]


@dataclass(frozen=True)
class HeadOptions:
    """What is built on a backbone's features.

    `kind`: "plain" is a linear layer to the actions; "hierarchical" has one to the body parts beside it (`joint_logits`).
    `embedding_dim`: length of the label vectors that the embedding branch is trained towards; None: no such branch.
    `init_std`: standard deviation of the linear layers' first weights.
    """

    num_classes: int = len(ACTIONS)
    kind: HeadKind = "plain"
    embedding_dim: int | None = None
    dropout: float = 0.5
    init_std: float = 0.01


class VideoClassifier(Network):
    """A network that classifies clips: `features` of a backbone, dropout, then the heads, each averaged over a clip's parts.

    `forward` takes `Inputs` with normalized RGB frames [B, T, 3, H, W], T = `num_frames`, and returns `Outputs`: `logits`
    [B, K], whose softmax is the class probabilities, and `embedding` [B, D] where the head has that branch. A subclass builds
    its backbone and implements `features`.
    """

    backbone: nn.Module

    def __init__(
        self, backbone: nn.Module, num_frames: int, num_features: int, num_parts: int, options: HeadOptions
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_frames, self.head_options = num_frames, options
        self.dropout = nn.Dropout(options.dropout)
        self.dropout_probability, self.dropout_shape = options.dropout, (num_parts, num_features)
        self.action = nn.Linear(num_features, options.num_classes)
        self.body: nn.Linear | None = None
        if options.kind == "hierarchical":
            if options.num_classes != len(ACTIONS):
                raise ValueError(
                    f"a hierarchical head knows the body parts of the {len(ACTIONS)} actions of MA-52, not of "
                    f"{options.num_classes} classes: use the plain head"
                )
            self.body = nn.Linear(num_features, len(BODY_PARTS))
        self.embedding = (
            None
            if options.embedding_dim is None
            else nn.Sequential(
                OrderedDict(
                    hidden=nn.Linear(num_features, options.embedding_dim),
                    tanh=nn.Tanh(),
                    output=nn.Linear(options.embedding_dim, options.embedding_dim),
                )
            )
        )
        for module in (self.action, self.body, self.embedding):
            for layer in () if module is None else module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=options.init_std)
                    nn.init.zeros_(layer.bias)

    def features(self, frames_BTCHW: Tensor, scales: Scales = ()) -> Tensor:
        """Return the features [B, F, C] of normalized frames. `scales` are those of `drop_path_rates`."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the outputs of a batch of clips."""
        frames_BTCHW, mask_BFC = inputs.frames_BTCHW, inputs.dropout_mask_BTC
        if frames_BTCHW.ndim != 5 or frames_BTCHW.shape[1] != self.num_frames or frames_BTCHW.shape[2] != 3:
            raise ValueError(
                f"frames of shape {tuple(frames_BTCHW.shape)} must be [B, T={self.num_frames}, 3, H, W]: RGB, "
                f"{self.num_frames} frames of each clip"
            )
        features_BFC = self.features(frames_BTCHW, self._scales(inputs))
        # One mask for all branches, as in MANet's reference.
        features_BFC = self.dropout(features_BFC) if mask_BFC is None else features_BFC * mask_BFC
        return self.classify(features_BFC)

    def classify(self, features_BFC: Tensor) -> Outputs:
        """Return the heads' outputs for features, after dropout."""
        logits_BK = self.action(features_BFC).mean(dim=1)
        embedding_BD = None if self.embedding is None else self.embedding(features_BFC).mean(dim=1)
        if self.body is None:
            return Outputs(logits_BK, embedding_BD)
        body_BP = self.body(features_BFC).mean(dim=1)
        return Outputs(joint_logits(logits_BK, body_BP), embedding_BD)

    def set_gradient_checkpointing(self) -> None:
        """Keep the inputs of blocks alone in training. Raises `ValueError` for a network whose blocks have batch norms.

        Such blocks would count each batch twice in their running statistics.
        """
        groups = [module for module in self.modules() if isinstance(module, Blocks)]
        if not groups:
            raise ValueError(
                "gradient checkpointing needs a network of blocks without batch norms, such as a transformer"
            )
        for group in groups:
            group.is_checkpointed = True

    def fold_norms(self) -> None:
        """Fold batch norms into the convolutions before them: `conv1` and `bn1` of a module, or both in a `Sequential`.

        For a copy in evaluation mode that is not trained any more.
        """
        for module in list(self.modules()):
            fold_batch_norms(module)

    def _scales(self, inputs: Inputs) -> Scales:
        """Return the factor [B] of each residual branch, None for 1: as given, or random ones in training."""
        rates = self.drop_path_rates
        mask_BL = inputs.drop_path_mask_BL
        if mask_BL is None:
            if not self.training or not any(rates):
                return [None] * len(rates)
            keep_L = 1 - torch.tensor(rates, device=inputs.frames_BTCHW.device)
            random_BL = torch.rand(len(inputs.frames_BTCHW), len(rates), device=inputs.frames_BTCHW.device)
            mask_BL = (random_BL < keep_L) / keep_L
        return cast(Sequence[Tensor], mask_BL.unbind(dim=1))


def joint_logits(action_BK: Tensor, body_BP: Tensor) -> Tensor:
    """Return log P(action) = log P(body part) + log P(action | body part) [B, K].

    P(body part) is the softmax of `body_BP`, and P(action | body part) that of `action_BK` over the actions of one body part.
    Since the logits are log-probabilities, their cross-entropy is the sum of both cross-entropies.
    """
    body_K = torch.tensor(BODY_PART_OF, device=action_BK.device)
    log_body_BP = body_BP.float().log_softmax(dim=1)
    action_BK = action_BK.float()
    of_part_PK = torch.arange(len(BODY_PARTS), device=action_BK.device)[:, None] == body_K
    masked_BPK = action_BK[:, None].masked_fill(~of_part_PK, -torch.inf)
    return log_body_BP[:, body_K] + action_BK - masked_BPK.logsumexp(dim=2)[:, body_K]


def fold_batch_norms(module: nn.Module) -> None:
    """Fold the batch norms among a module's children into the convolutions before them, and remove them."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    names = dict(module.named_children())
    pairs = [(name, name.replace("conv", "bn", 1)) for name in names if name.startswith("conv")]
    if isinstance(module, nn.Sequential):
        pairs += [(name, str(int(name) + 1)) for name in names if name.isdigit()]
    for convolution, norm in pairs:
        before, after = names.get(convolution), names.get(norm)
        if isinstance(before, (nn.Conv2d, nn.Conv3d)) and isinstance(after, (nn.BatchNorm2d, nn.BatchNorm3d)):
            setattr(module, convolution, fuse_conv_bn_eval(before, after))
            setattr(module, norm, nn.Identity())
