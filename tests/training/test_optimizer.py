import pytest
import torch

from microaction.training.settings import RecipeConfig
from microaction.models import MANet
from microaction.training.optimizer import (
    build_optimizer,
    parameter_groups,
    scaled_learning_rate,
    schedule,
    set_learning_rate,
)

SMALL = {"width": 8, "depths": (1, 1, 1, 1), "embedding_dim": 10}


@pytest.mark.parametrize("variant", [{}, {"se": False, "embedding_dim": None}])
def test_every_parameter_is_in_one_group(variant: dict[str, object]) -> None:
    model = MANet(**{**SMALL, **variant})  # type: ignore[arg-type]
    grouped = [id(p) for group in parameter_groups(model, 1e-4) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_groups_are_the_references() -> None:
    model = MANet(**SMALL)  # type: ignore[arg-type]
    names = {id(p): name for name, p in model.named_parameters()}
    rule = {
        names[id(p)]: (group["lr_factor"], group["weight_decay"])
        for group in parameter_groups(model, 1e-4)
        for p in group["params"]
    }
    assert rule["backbone.conv1.weight"] == (1, 1e-4)
    assert rule["backbone.layer1.0.se.squeeze.weight"] == (1, 1e-4)
    assert rule["backbone.bn1.weight"] == rule["backbone.bn1.bias"] == (1, 0)
    assert rule["action.weight"] == (1, 1e-4)
    assert rule["action.bias"] == rule["embedding.hidden.bias"] == (2, 0)
    # The reference's "last layer" is the embedding branch's, not the classifier.
    assert rule["embedding.output.weight"] == (5, 1e-4)
    assert rule["embedding.output.bias"] == (10, 0)


def test_the_rate_is_linear_in_the_global_batch() -> None:
    assert scaled_learning_rate(RecipeConfig()) == pytest.approx(0.00125)
    assert scaled_learning_rate(RecipeConfig(batch_size=80)) == pytest.approx(0.01)


def test_the_references_steps() -> None:
    factor = schedule(RecipeConfig(), steps_per_epoch=10)
    assert [factor(epoch * 10) for epoch in (0, 29, 30, 59, 60, 79)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_warms_up_and_ends_at_nothing() -> None:
    factor = schedule(RecipeConfig(epochs=4, schedule="cosine", warmup_epochs=1), steps_per_epoch=10)
    values = [factor(step) for step in range(40)]
    assert values[:10] == sorted(values[:10])
    assert 0 < values[0] < 0.2
    assert max(values) == values[10] == 1
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] < 0.01


def test_setting_the_rate_keeps_the_groups_factors() -> None:
    model = MANet(**SMALL)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, RecipeConfig())
    set_learning_rate(optimizer, 0.01)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {"weights": 0.01, "biases": 0.02, "norms": 0.01, "last weight": 0.05, "last bias": 0.1}
    )
    assert isinstance(optimizer, torch.optim.SGD)
