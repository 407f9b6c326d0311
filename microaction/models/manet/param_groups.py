"""The reference's parameter groups for MANet. Needs torch alone."""

from typing import Any

from torch import Tensor, nn

from microaction.models.manet.network import MANet

BIAS_LR_FACTOR = 2.0
# By the reference's code its group "last layer" is the last Linear of the model: the embedding branch's second, not the
# action classifier.
LAST_WEIGHT_LR_FACTOR = 5.0
LAST_BIAS_LR_FACTOR = 10.0


def parameter_groups(model: MANet, weight_decay: float) -> list[dict[str, Any]]:
    """Return params, name, lr_factor and weight_decay of each group; every parameter is in exactly one.

    Weights of convolutions and linear layers ×1 with decay; biases ×2 without; batch norms ×1 without; the last linear
    layer's weight ×5 with decay and its bias ×10 without. Source: the authors' published code.
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
