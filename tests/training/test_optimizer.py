import pytest
import torch

from microaction.models import ManetConfig, build_model
from microaction.training.optimizer import (
    build_optimizer,
    scaled_learning_rate,
    schedule,
    set_learning_rate,
)
from microaction.training.settings import RecipeConfig

SMALL = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=10)


def test_the_rate_is_linear_in_the_global_batch() -> None:
    assert scaled_learning_rate(RecipeConfig()) == pytest.approx(0.00125)
    assert scaled_learning_rate(RecipeConfig(batch_size=80)) == pytest.approx(0.01)


def test_the_step_schedule_is_the_references() -> None:
    factor = schedule(RecipeConfig(), steps_per_epoch=10)
    assert [factor(epoch * 10) for epoch in (0, 29, 30, 59, 60, 79)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_warms_up_and_ends_at_zero() -> None:
    factor = schedule(RecipeConfig(epochs=4, schedule="cosine", warmup_epochs=1), steps_per_epoch=10)
    values = [factor(step) for step in range(40)]
    assert values[:10] == sorted(values[:10])
    assert 0 < values[0] < 0.2
    assert max(values) == values[10] == 1
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] < 0.01


def test_setting_the_rate_keeps_the_groups_factors() -> None:
    optimizer = build_optimizer(build_model(SMALL), SMALL, RecipeConfig())
    set_learning_rate(optimizer, 0.01)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {"weights": 0.01, "biases": 0.02, "norms": 0.01, "last weight": 0.05, "last bias": 0.1}
    )
    assert isinstance(optimizer, torch.optim.SGD)
