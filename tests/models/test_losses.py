from pathlib import Path

import numpy as np
import pytest
import torch

from microaction.models import JointEmbeddingLoss


def formula(logits_BK: np.ndarray, embedding_BD: np.ndarray, target_B: np.ndarray, table_KD: np.ndarray) -> float:
    """Return L = CE + 50 · mean((embedding − E[y])²), computed element by element."""
    log_sum = np.log(np.exp(logits_BK).sum(axis=1))
    cross_entropy = np.mean(log_sum - logits_BK[np.arange(len(target_B)), target_B])
    squares = [
        (embedding_BD[b, d] - table_KD[target_B[b], d]) ** 2
        for b in range(embedding_BD.shape[0])
        for d in range(embedding_BD.shape[1])
    ]
    return float(cross_entropy + 50 * sum(squares) / len(squares))


def test_loss_is_the_formula_with_the_references_vectors(shared: Path) -> None:
    table_KD = np.load(shared / "data/ma52/label_word_vectors.npy")
    check_formula(table_KD)


def test_loss_is_the_formula_with_any_table() -> None:
    check_formula(np.random.default_rng(0).normal(size=(52, 20)).astype(np.float32))


def check_formula(table_KD: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    logits, embedding = rng.normal(size=(6, 52)), rng.normal(size=(6, table_KD.shape[1]))
    target = rng.integers(52, size=6)
    loss = JointEmbeddingLoss(torch.from_numpy(table_KD))(
        torch.from_numpy(logits).float(), torch.from_numpy(embedding).float(), torch.from_numpy(target)
    )
    assert loss.item() == pytest.approx(formula(logits, embedding, target, table_KD.astype(np.float64)), rel=1e-5)


def test_without_an_embedding_loss_is_the_cross_entropy() -> None:
    logits, target = torch.randn(4, 52), torch.tensor([0, 1, 2, 51])
    loss = JointEmbeddingLoss(torch.zeros(52, 3))(logits, None, target)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, target))


def test_the_label_embeddings_are_neither_trained_nor_saved() -> None:
    loss = JointEmbeddingLoss(torch.zeros(52, 3))
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_another_embedding_dimension_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="build the model with embedding_dim=3"):
        JointEmbeddingLoss(torch.zeros(52, 3))(torch.zeros(2, 52), torch.zeros(2, 300), torch.tensor([0, 1]))
