"""The optimizer of a recipe: groups of parameters, learning rate and its schedule."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from microaction.models import ModelConfig, Network
from microaction.models.families import family_of
from microaction.models.layers import Blocks
from microaction.models.mapping import HEADS
from microaction.training.errors import TrainingError
from microaction.training.settings import RecipeConfig

STEP_FACTOR = 0.1
DETECTOR_HEAD = "detector."  # all of a detector but its backbone
LAST_NORMS = ("backbone.norm.", "backbone.fc_norm.")  # after the last block
# Without weight decay beside all vectors. Source: the recipes of Swin and of vision transformers.
NEVER_DECAYED = ("relative_position_bias_table", "cls_token", "pos_embed", "time_embed")


def build_optimizer(model: Network, config: ModelConfig, recipe: RecipeConfig) -> Optimizer:
    """Return the recipe's optimizer; set each step's rates with `set_learning_rate`.

    SGD has the family's parameter groups; AdamW has groups by block (`adamw_groups`).
    """
    rate = scaled_learning_rate(recipe)
    if recipe.optimizer == "adamw":
        groups = adamw_groups(model, recipe.weight_decay, recipe.backbone_lr_factor, recipe.layer_decay)
        return AdamW(groups, lr=rate)
    groups = family_of(config).param_groups(model, recipe.weight_decay)
    return SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.nesterov)


def adamw_groups(
    model: Network, weight_decay: float, backbone_lr_factor: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Return params, name, lr_factor and weight_decay of each group; every parameter is in exactly one.

    Norms, biases and embeddings of positions have no decay. The heads' rate is the learning rate; the backbone's is
    `backbone_lr_factor` times that, and `layer_decay` times the next block's from the last block down to the patches.
    Raises `TrainingError` for layer decay of a network that has no blocks to count.
    """
    depth_of = block_depths(model)
    num_blocks = max(depth_of.values(), default=0)
    if layer_decay < 1 and not num_blocks:
        raise TrainingError(f"recipe.layer_decay ({layer_decay}) is for transformers: leave it out")
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        is_decayed = parameter.squeeze().ndim > 1 and not name.endswith(NEVER_DECAYED)
        if name.startswith((*HEADS, DETECTOR_HEAD)):
            factor, part = 1.0, "heads"
        else:
            block = next((prefix for prefix in depth_of if name.startswith(prefix)), None)
            is_last = block is None and name.startswith(LAST_NORMS)
            depth = depth_of[block] if block is not None else (num_blocks + 1 if is_last else 0)
            factor = backbone_lr_factor * layer_decay ** (num_blocks + 1 - depth)
            part = f"depth {depth}"
        key = f"{part}, {'decayed' if is_decayed else 'not decayed'}"
        group = groups.setdefault(
            key, {"name": key, "params": [], "lr_factor": factor, "weight_decay": weight_decay if is_decayed else 0.0}
        )
        group["params"].append(parameter)
    return list(groups.values())


def block_depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each transformer block, counted from 1, by the beginning of its parameters' names."""
    names = [
        f"{name}.{number}."
        for name, module in model.named_modules()
        if isinstance(module, Blocks)
        for number in range(len(module))
    ]
    return {name: depth for depth, name in enumerate(names, start=1)}


def scaled_learning_rate(recipe: RecipeConfig) -> float:
    """Return the peak rate of a ×1 group: linear in the global batch."""
    return recipe.learning_rate * recipe.batch_size / recipe.base_batch_size


def schedule(recipe: RecipeConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return a function of the step number (from 0): the factor on the learning rate, in [0, 1]."""
    total = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup_epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if recipe.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        epoch = step // steps_per_epoch
        return STEP_FACTOR ** sum(epoch >= milestone * recipe.epochs for milestone in recipe.milestones)

    return factor


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set every group's rate: `rate` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
