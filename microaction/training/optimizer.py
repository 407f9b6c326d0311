"""The optimizer of a recipe: the family's parameter groups, learning rate and its schedule."""

import math
from collections.abc import Callable

from torch.optim import SGD

from microaction.models import ModelConfig, Network
from microaction.models.families import family_of
from microaction.training.settings import RecipeConfig

REFERENCE_BATCH_SIZE = 10  # the reference's learning rate belongs to this global batch
STEP_MILESTONES = (30 / 80, 60 / 80)  # reference: epochs 30 and 60 of 80
STEP_FACTOR = 0.1


def build_optimizer(model: Network, config: ModelConfig, recipe: RecipeConfig) -> SGD:
    """Return SGD with momentum over the family's parameter groups; set each step's rates with `set_learning_rate`."""
    groups = family_of(config).param_groups(model, recipe.weight_decay)
    return SGD(groups, lr=scaled_learning_rate(recipe), momentum=recipe.momentum)


def scaled_learning_rate(recipe: RecipeConfig) -> float:
    """Return the peak rate of a ×1 group: linear in the global batch."""
    return recipe.learning_rate * recipe.batch_size / REFERENCE_BATCH_SIZE


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
        return STEP_FACTOR ** sum(epoch >= milestone * recipe.epochs for milestone in STEP_MILESTONES)

    return factor


def set_learning_rate(optimizer: SGD, rate: float) -> None:
    """Set every group's rate: `rate` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
