"""The reference recipe's optimiser: parameter groups, learning rate and its schedule."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from microaction.config import RecipeConfig
from microaction.model import MANet

REFERENCE_BATCH_SIZE = 10  # the reference's learning rate belongs to this global batch
STEP_MILESTONES = (30 / 80, 60 / 80)  # reference: epochs 30 and 60 of 80
STEP_FACTOR = 0.1
BIAS_LR_FACTOR = 2.0
# By the reference's code its group "last layer" is the last Linear of the model: the embedding branch's second, and not
# the action classifier.
LAST_WEIGHT_LR_FACTOR = 5.0
LAST_BIAS_LR_FACTOR = 10.0


def parameter_groups(model: MANet, weight_decay: float) -> list[dict[str, Any]]:
    """The reference's groups: params, name, lr_factor and weight_decay of each; every parameter is in exactly one.

    Weights of convolutions and linear layers ×1 with decay; biases ×2 without; batch norms ×1 without; the last linear
    layer's weight ×5 with decay and bias ×10 without.
    """
    last = model.embedding.output if model.embedding is not None else None
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    norms: list[Tensor] = []
    for module in model.modules():
        if module is last:
            continue
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            norms += list(module.parameters(recurse=False))
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            weights.append(module.weight)
            if module.bias is not None:
                biases.append(module.bias)
    groups = [
        {"name": "weights", "params": weights, "lr_factor": 1.0, "weight_decay": weight_decay},
        {"name": "biases", "params": biases, "lr_factor": BIAS_LR_FACTOR, "weight_decay": 0.0},
        {"name": "norms", "params": norms, "lr_factor": 1.0, "weight_decay": 0.0},
    ]
    if isinstance(last, nn.Linear):
        groups += [
            {
                "name": "last weight",
                "params": [last.weight],
                "lr_factor": LAST_WEIGHT_LR_FACTOR,
                "weight_decay": weight_decay,
            },
            {"name": "last bias", "params": [last.bias], "lr_factor": LAST_BIAS_LR_FACTOR, "weight_decay": 0.0},
        ]
    return groups


def build_optimizer(model: MANet, recipe: RecipeConfig) -> SGD:
    """SGD with momentum over the reference's groups; set each step's rates with `set_learning_rate`."""
    return SGD(parameter_groups(model, recipe.weight_decay), lr=scaled_learning_rate(recipe), momentum=recipe.momentum)


def scaled_learning_rate(recipe: RecipeConfig) -> float:
    """The peak rate of a ×1 group: linear in the global batch."""
    return recipe.learning_rate * recipe.batch_size / REFERENCE_BATCH_SIZE


def schedule(recipe: RecipeConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Step number (from 0) → factor on the learning rate, in [0, 1]."""
    total = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup_epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if recipe.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        epoch = step // steps_per_epoch
        return STEP_FACTOR ** sum(epoch >= milestone * recipe.epochs for milestone in STEP_MILESTONES)

    return factor


def set_learning_rate(optimizer: SGD, rate: float) -> None:
    """Sets every group's rate: `rate` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
