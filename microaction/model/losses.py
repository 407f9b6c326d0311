"""The joint-embedding loss: cross-entropy plus the distance to the true action's label embedding.

Shapes: B clips, K actions, D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_LOSS_WEIGHT = 50.0  # reference: the head's loss


class JointEmbeddingLoss(nn.Module):
    """L = cross_entropy(logits, y) + weight · mean((embedding − E[y])²), the mean over all B×D numbers.

    `label_embeddings_KD` is E, one vector per action; it is a buffer, never trained and not saved with the model.
    Called with logits [B, K], embedding [B, D] and target [B] (int64); returns a scalar. Without an embedding (None, as
    TSM and TSN give it) the loss is the cross-entropy. `label_smoothing` is the share of the target's probability that is
    spread over all actions.
    Source: Guo et al. 2024, and the weight of the authors' published code.
    """

    label_embeddings_KD: Tensor

    def __init__(
        self, label_embeddings_KD: Tensor, weight: float = EMBEDDING_LOSS_WEIGHT, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if label_embeddings_KD.ndim != 2:
            raise ValueError(f"label embeddings of shape {tuple(label_embeddings_KD.shape)} must be [K, D]")
        self.register_buffer(
            "label_embeddings_KD", label_embeddings_KD.detach().to(torch.float32).clone(), persistent=False
        )
        self.weight, self.label_smoothing = weight, label_smoothing

    def forward(self, logits_BK: Tensor, embedding_BD: Tensor | None, target_B: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits_BK, target_B, label_smoothing=self.label_smoothing)
        if embedding_BD is None:
            return loss
        expected_BD = self.label_embeddings_KD[target_B]
        if embedding_BD.shape != expected_BD.shape:
            raise ValueError(
                f"the model's embedding has {embedding_BD.shape[-1]} numbers and the label embeddings have "
                f"{expected_BD.shape[-1]}; build the model with embedding_dim={expected_BD.shape[-1]}"
            )
        return loss + self.weight * functional.mse_loss(embedding_BD, expected_BD)
