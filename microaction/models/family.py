"""What a family of networks is. Importable without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from microaction.models.settings import ClassifierConfig, ModelConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from microaction.models.interface import ChannelStatistics, Network
    from microaction.models.video_classifier import HeadOptions

StateDict = Mapping[str, "Tensor"]

Task = Literal["recognition", "detection"]
MA52_LICENSE = "weights trained on MA-52 inherit its license: non-commercial scientific use only"


@dataclass(frozen=True)
class Importer:
    """Reads one layout of published weights into a network of a family.

    `recognizes` tells the layout by the weights' keys and shapes. `load(model, weights, any_head=False)` is strict and leaves the
    network unchanged when it raises `CheckpointError`; with `any_head`, heads of another size stay as they are. `config_of`
    returns the configuration of the network that the weights belong to; None for weights that only initialize a part of the
    network. `license` is what a user of the weights must know.
    """

    description: str
    recognizes: Callable[[StateDict], bool]
    load: Callable[..., None]
    config_of: Callable[[StateDict], ModelConfig] | None = None
    license: str = ""


@dataclass(frozen=True)
class Family:
    """A kind of network: an entry of `FAMILIES`.

    `config` is its configuration, `build` a network with random weights, `for_inference` a module that turns uint8 RGB frames
    [B, T, H, W, 3] into float32 logits [B, K] as fast as the device can, `param_groups` the optimizer's groups for a weight
    decay, with `params`, `name`, `lr_factor` and `weight_decay` each. `batch_loss`: a module from the outputs and targets of a
    whole global batch to its loss, for networks whose clips' losses depend on each other; others are trained with
    `JointEmbeddingLoss`. `task`: whether it classifies clips, or finds actions in untrimmed video.
    The functions must be importable by name: a `Family` travels to the workers of a cluster.
    """

    name: str
    config: type[ModelConfig]
    build: Callable[[Any], "Network"]
    for_inference: Callable[[Any, "ChannelStatistics", "torch.dtype"], "nn.Module"]
    param_groups: Callable[[Any, float], list[dict[str, Any]]]
    importers: tuple[Importer, ...] = ()
    batch_loss: Callable[[Any], "nn.Module"] | None = None
    task: Task = "recognition"


def head_options(config: ClassifierConfig, init_std: float) -> "HeadOptions":
    """Return what a configuration wants on a backbone's features; `init_std`: of the linear layers' first weights."""
    from microaction.models.video_classifier import HeadOptions

    embedding_dim = config.embedding_dim if config.joint_embedding else None
    return HeadOptions(config.num_classes, config.head, embedding_dim, config.dropout, init_std)


def for_inference(model: Any, statistics: "ChannelStatistics", dtype: "torch.dtype") -> "nn.Module":
    """Return a network that classifies clips in its fastest form: folded batch norms, channels last, no embedding branch."""
    from microaction.models.inference import InferenceModel

    return InferenceModel(model, statistics, dtype)
