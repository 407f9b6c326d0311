from pathlib import Path

import numpy as np
import pytest
import torch

from microaction.model import JointEmbeddingLoss


def formula(logits_BK: np.ndarray, embedding_BD: np.ndarray, target_B: np.ndarray, table_KD: np.ndarray) -> float:
    """L = CE + 50 · mean((embedding − E[y])²), number by number."""
    log_sum = np.log(np.exp(logits_BK).sum(axis=1))
    cross_entropy = np.mean(log_sum - logits_BK[np.arange(len(target_B)), target_B])
    squares = [
        (embedding_BD[b, d] - table_KD[target_B[b], d]) ** 2
        for b in range(embedding_BD.shape[0])
        for d in range(embedding_BD.shape[1])
    ]
    return float(cross_entropy + 50 * sum(squares) / len(squares))


def test_loss_equals_the_formula_with_the_references_word_vectors(shared: Path) -> None:
    table_KD = np.load(shared / "data/ma52/label_word_vectors.npy")
    check(table_KD)


def test_loss_equals_the_formula_with_any_table() -> None:
    check(np.random.default_rng(0).normal(size=(52, 20)).astype(np.float32))


def check(table_KD: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    logits, embedding = rng.normal(size=(6, 52)), rng.normal(size=(6, table_KD.shape[1]))
    target = rng.integers(52, size=6)
    loss = JointEmbeddingLoss(torch.from_numpy(table_KD))(
        torch.from_numpy(logits).float(), torch.from_numpy(embedding).float(), torch.from_numpy(target)
    )
    assert loss.item() == pytest.approx(formula(logits, embedding, target, table_KD.astype(np.float64)), rel=1e-5)


def test_without_an_embedding_it_is_the_cross_entropy() -> None:
    logits, target = torch.randn(4, 52), torch.tensor([0, 1, 2, 51])
    loss = JointEmbeddingLoss(torch.zeros(52, 3))(logits, None, target)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, target))


def test_the_table_is_neither_trained_nor_saved() -> None:
    loss = JointEmbeddingLoss(torch.zeros(52, 3))
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_a_table_of_another_dimension_names_the_way_out() -> None:
    with pytest.raises(ValueError, match="build the model with embedding_dim=3"):
        JointEmbeddingLoss(torch.zeros(52, 3))(torch.zeros(2, 52), torch.zeros(2, 300), torch.tensor([0, 1]))
