"""MANet's entry in the table of families. Importable without torch."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from microaction.models.family import Family, Importer, StateDict
from microaction.models.manet.config import ManetConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from microaction.models.interface import ChannelStatistics
    from microaction.models.manet.network import MANet

MA52_LICENSE = "weights trained on MA-52 inherit its license: non-commercial scientific use only"


def build(config: ManetConfig) -> "MANet":
    """Return a MANet with random weights."""
    from microaction.models.manet.network import MANet

    return MANet(
        config.num_classes,
        config.num_frames,
        config.embedding_dim if config.joint_embedding else None,
        width=config.width,
        depths=config.depths,
        se=config.se,
        shift=config.shift,
        dropout=config.dropout,
    )


def for_inference(model: "MANet", statistics: "ChannelStatistics", dtype: "torch.dtype") -> "nn.Module":
    """Return the network with folded batch norms and without its embedding branch."""
    from microaction.models.manet.inference import InferenceModel

    return InferenceModel(model, statistics, dtype)


def param_groups(model: "MANet", weight_decay: float) -> list[dict[str, Any]]:
    """Return the reference's parameter groups."""
    from microaction.models.manet.param_groups import parameter_groups

    return parameter_groups(model, weight_decay)


def is_published_manet(keys: Collection[str]) -> bool:
    """Return whether the keys are those of the authors' checkpoint (mmcv's layout)."""
    return any(str(key).endswith(".conv1.conv.fcce.0.weight") for key in keys)


def load_published_manet(model: "MANet", state_dict: StateDict) -> None:
    """Load the authors' checkpoint."""
    from microaction.models.manet.importers import load_published_state

    load_published_state(model, state_dict)


def published_manet_config(state_dict: StateDict) -> ManetConfig:
    """Return the configuration of the network that the authors' checkpoint belongs to."""
    from microaction.models.manet.importers import published_config

    return published_config(state_dict)


def is_resnet(keys: Collection[str]) -> bool:
    """Return whether the keys are those of a torchvision ResNet with bottlenecks."""
    return "layer1.0.conv3.weight" in keys


def load_resnet(model: "MANet", state_dict: StateDict) -> None:
    """Load a torchvision ResNet-50 into the backbone."""
    from microaction.models.manet.importers import load_resnet_state

    load_resnet_state(model, state_dict)


MANET = Family(
    name="manet",
    config=ManetConfig,
    build=build,
    for_inference=for_inference,
    param_groups=param_groups,
    importers=(
        Importer(
            "MANet as its authors publish it",
            is_published_manet,
            load_published_manet,
            config_of=published_manet_config,
            license=MA52_LICENSE,
        ),
        Importer("torchvision's ResNet-50", is_resnet, load_resnet),
    ),
)

MANET_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "manet": ("manet", {}),
    "tsm": ("manet", {"se": False, "joint_embedding": False}),
    "tsn": ("manet", {"se": False, "joint_embedding": False, "shift": False}),
}
