"""The joint-embedding loss: cross-entropy plus the squared distance to the label embedding of the true action.

Shapes: B clips, K actions, D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_LOSS_WEIGHT = 50.0  # reference: loss of the head


class JointEmbeddingLoss(nn.Module):
    """L = cross_entropy(logits, y) + weight · mean((embedding − E[y])²), the mean over all B×D numbers.

    `label_embeddings_KD` is E, a vector per action. It is a buffer that is neither trained nor saved with the model.
    `label_smoothing` is the fraction of the target's probability that is spread evenly over all actions.

    Source: Guo et al. 2024; the weight is that of the authors' published code.
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
        """Return the scalar loss of logits [B, K], embedding [B, D] and target [B] (int64).

        Without an embedding (None, as TSM and TSN return) it is the cross-entropy.
        """
        loss = functional.cross_entropy(logits_BK, target_B, label_smoothing=self.label_smoothing)
        if embedding_BD is None:
            return loss
        expected_BD = self.label_embeddings_KD[target_B]
        if embedding_BD.shape != expected_BD.shape:
            raise ValueError(
                f"the model's embedding has {embedding_BD.shape[-1]} dimensions and the label embeddings have "
                f"{expected_BD.shape[-1]}; build the model with embedding_dim={expected_BD.shape[-1]}"
            )
        return loss + self.weight * functional.mse_loss(embedding_BD, expected_BD)
