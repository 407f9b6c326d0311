from typing import Any

import pytest
import torch

from microaction.models import ManetConfig, Network, build_model, create_model
from microaction.models.settings import parse_model_config
from microaction.training.errors import TrainingError
from microaction.training.optimizer import (
    build_optimizer,
    scaled_learning_rate,
    schedule,
    set_learning_rate,
)
from microaction.training.settings import RecipeConfig
from tests.models.networks import SMALL_NETWORKS

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


def adamw(model: str, **changes: object) -> tuple[Network, list[dict[str, Any]]]:
    network = create_model(model, **SMALL_NETWORKS[model])
    recipe = RecipeConfig.model_validate({"optimizer": "adamw", "weight_decay": 0.05} | changes)
    optimizer = build_optimizer(network, parse_model_config({"preset": model, **SMALL_NETWORKS[model]}), recipe)
    assert isinstance(optimizer, torch.optim.AdamW)
    return network, optimizer.param_groups


@pytest.mark.parametrize("model", ["vit-s", "video-swin-t", "timesformer", "uniformer-s", "manet"])
def test_adamw_has_every_parameter_once_and_decays_no_vectors(model: str) -> None:
    network, groups = adamw(model)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        is_position = any(part in name for part in ("bias_table", "cls_token", "pos_embed", "time_embed"))
        is_convolution = name.endswith("pos_embed.weight")  # UniFormer's positions are convolutions
        expected = parameter.ndim > 1 and (is_convolution or not is_position)
        assert (id(parameter) in decayed) == expected, name


def test_layer_decay_slows_earlier_blocks() -> None:
    network, groups = adamw("vit-s", layer_decay=0.5, backbone_lr_factor=0.1)
    factor = {id(parameter): group["lr_factor"] for group in groups for parameter in group["params"]}
    factors = {name: factor[id(parameter)] for name, parameter in network.named_parameters()}
    assert factors["action.weight"] == 1
    assert factors["backbone.fc_norm.weight"] == pytest.approx(0.1)
    assert factors["backbone.blocks.1.attn.qkv.weight"] == pytest.approx(0.05)
    assert factors["backbone.blocks.0.mlp.fc1.bias"] == pytest.approx(0.025)
    assert factors["backbone.patch_embed.weight"] == pytest.approx(0.0125)


def test_layer_decay_needs_blocks() -> None:
    with pytest.raises(TrainingError, match=r"recipe.layer_decay \(0.5\) is for transformers"):
        adamw("i3d-r50", layer_decay=0.5)


def test_milestones_are_fractions_of_the_epochs() -> None:
    factor = schedule(RecipeConfig(epochs=50, milestones=(0.4, 0.8)), steps_per_epoch=10)
    assert [factor(epoch * 10) for epoch in (19, 20, 39, 40)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_the_rate_belongs_to_the_recipes_own_batch() -> None:
    recipe = RecipeConfig(learning_rate=3e-4, base_batch_size=192, batch_size=64)
    assert scaled_learning_rate(recipe) == pytest.approx(1e-4)
