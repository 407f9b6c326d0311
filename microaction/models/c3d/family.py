"""C3D's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, has_keys, load_layout
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.c3d.network import C3D

INIT_STD = 0.01


class C3DConfig(ClassifierConfig):
    """C3D; the defaults are the paper's network."""

    family: Literal["c3d"] = Field("c3d", description="Kind of network.")
    num_frames: PositiveInt = Field(16, multiple_of=16, description="Frames of a clip, a multiple of 16.")
    side: PositiveInt = Field(112, ge=16, description="Side in pixels of the frames that the network is bound to.")
    width: PositiveInt = Field(64, description="Channels of the first convolution.")
    hidden: PositiveInt = Field(4096, description="Width of the two fully connected layers.")


def build(config: C3DConfig) -> "C3D":
    """Return a C3D with random weights."""
    from microaction.models.c3d.network import C3D

    return C3D(
        head_options(config, INIT_STD), config.num_frames, side=config.side, width=config.width, hidden=config.hidden
    )


MMACTION = Layout(
    "a C3D as mmaction2 saves it",
    (
        (r"backbone\.(conv\d[ab])\.conv\.(weight|bias)", r"backbone.\1.\2"),
        (r"backbone\.(fc[67])\.(weight|bias)", r"backbone.\1.\2"),
        MMACTION_CLASSIFIER,
    ),
)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are C3D's as mmaction2 saves them."""
    return has_keys(state_dict, r"backbone\.conv1a\.conv\.weight")


def mmaction_config(state_dict: StateDict) -> C3DConfig:
    """Return the configuration of the network that the weights belong to."""
    return C3DConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        width=len(state_dict["backbone.conv1a.conv.bias"]),
        hidden=len(state_dict["backbone.fc6.bias"]),
    )


C3D_FAMILY = Family(
    name="c3d",
    config=C3DConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(Importer(MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config),),
)
