"""What a family of networks is. Importable without torch."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microaction.models.settings import ModelConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from microaction.models.interface import ChannelStatistics, Network

StateDict = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Importer:
    """Reads one layout of published weights into a network of a family.

    `recognizes` tells the layout by its keys, `load` is strict and leaves the network unchanged when it raises
    `CheckpointError`. `config_of` returns the configuration of the network that the weights belong to; None for weights that
    only initialize a part of the network. `license` is what a user of the weights must know.
    """

    description: str
    recognizes: Callable[[Collection[str]], bool]
    load: Callable[[Any, StateDict], None]
    config_of: Callable[[StateDict], ModelConfig] | None = None
    license: str = ""


@dataclass(frozen=True)
class Family:
    """A kind of network: an entry of `FAMILIES`.

    `config` is its configuration, `build` a network with random weights, `for_inference` a module that turns uint8 RGB frames
    [B, T, H, W, 3] into float32 logits [B, K] as fast as the device can, `param_groups` the optimizer's groups for a weight
    decay, with `params`, `name`, `lr_factor` and `weight_decay` each. The functions must be importable by name: a `Family`
    travels to the workers of a cluster.
    """

    name: str
    config: type[ModelConfig]
    build: Callable[[Any], "Network"]
    for_inference: Callable[[Any, "ChannelStatistics", "torch.dtype"], "nn.Module"]
    param_groups: Callable[[Any, float], list[dict[str, Any]]]
    importers: tuple[Importer, ...] = ()
