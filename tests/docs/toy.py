"""A family of networks in one file: mean and spread of the colors over time, and one linear layer."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from microaction.models import Family, Inputs, ModelConfig, Network, Outputs
from microaction.models.inference import PlainInferenceModel


class ToyConfig(ModelConfig):
    """A network of one layer."""

    family: Literal["toy"] = "toy"
    grid: int = 4


class ToyNetwork(Network):
    """Logits [B, K] from the mean and the standard deviation over time of a coarse grid of colors."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(config.grid)
        self.action = nn.Linear(2 * 3 * config.grid**2, config.num_classes)

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the logits."""
        B, T = inputs.frames_BTCHW.shape[:2]
        features_BTD = self.pool(inputs.frames_BTCHW.flatten(0, 1)).reshape(B, T, -1)
        mean_BD = features_BTD.mean(dim=1)
        spread_BD = (features_BTD - mean_BD[:, None]).square().mean(dim=1).sqrt()
        logits_BK: Tensor = self.action(torch.cat([mean_BD, spread_BD], dim=1))
        return Outputs(logits_BK)


def build(config: ToyConfig) -> ToyNetwork:
    """Return the network with random weights."""
    return ToyNetwork(config)


def for_inference(model: ToyNetwork, statistics: Any, dtype: torch.dtype) -> nn.Module:
    """Return the network as it is, with normalization in front."""
    return PlainInferenceModel(model, statistics, dtype)


def param_groups(model: ToyNetwork, weight_decay: float) -> list[dict[str, Any]]:
    """Return one group of parameters; `lr_factor` multiplies the learning rate."""
    parameters = list(model.parameters())
    return [{"name": "all", "params": parameters, "lr_factor": 1.0, "weight_decay": weight_decay}]


TOY = Family("toy", config=ToyConfig, build=build, for_inference=for_inference, param_groups=param_groups)
