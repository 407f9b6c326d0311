"""TIN's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.manet.config import RESNET50_DEPTHS, Depths
from microaction.models.manet.family import is_resnet
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, has_keys, load_layout, stage_depths
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.tin.network import TIN

INIT_STD = 0.001


class TINConfig(ClassifierConfig):
    """TIN on ResNet-50."""

    family: Literal["tin"] = Field("tin", description="Kind of network.")
    width: PositiveInt = Field(64, multiple_of=16, description="Channels of the stem, a multiple of 16.")
    depths: Depths = Field(RESNET50_DEPTHS, description="Blocks of the four stages.")


def build(config: TINConfig) -> "TIN":
    """Return a TIN with random weights."""
    from microaction.models.tin.network import TIN

    return TIN(head_options(config, INIT_STD), config.num_frames, width=config.width, depths=config.depths)


_BLOCK = r"(backbone\.layer\d\.\d+)\."
MMACTION = Layout(
    "a TIN as mmaction2 saves it",
    (
        (r"backbone\.conv1\.conv\.weight", r"backbone.conv1.weight"),
        (r"backbone\.conv1\.bn\.(\w+)", r"backbone.bn1.\1"),
        (_BLOCK + r"conv1\.conv\.net2\.weight", r"\1.conv1.weight"),
        (_BLOCK + r"conv1\.conv\.net1\.offset_net\.(conv|fc1|fc2)\.(\w+)", r"\1.interlace.offset_\2.\3"),
        (_BLOCK + r"conv1\.conv\.net1\.weight_net\.conv\.(\w+)", r"\1.interlace.gate_conv.\2"),
        (_BLOCK + r"conv([23])\.conv\.weight", r"\1.conv\2.weight"),
        (_BLOCK + r"conv(\d)\.bn\.(\w+)", r"\1.bn\2.\3"),
        (_BLOCK + r"downsample\.conv\.weight", r"\1.downsample.0.weight"),
        (_BLOCK + r"downsample\.bn\.(\w+)", r"\1.downsample.1.\2"),
        MMACTION_CLASSIFIER,
    ),
)

RESNET = Layout(
    "torchvision's ResNet-50",
    (
        (r"(?:backbone\.)?((?:conv1|bn1|layer\d)\..+)", r"backbone.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(r"fc\.(weight|bias)",),
    may_lack=(r"(action|body|embedding)\..+", r".+\.interlace\..+"),
)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are TIN's as mmaction2 saves them."""
    return has_keys(state_dict, _BLOCK + r"conv1\.conv\.net1\.offset_net\.fc1\.weight")


def mmaction_config(state_dict: StateDict) -> TINConfig:
    """Return the configuration of the network that the weights belong to."""
    depths: Any = stage_depths(state_dict, r"backbone\.layer{}\.(\d+)\.", 4)
    return TINConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        num_frames=len(state_dict["backbone.layer1.0.conv1.conv.net1.offset_net.fc1.bias"]),
        width=len(state_dict["backbone.conv1.conv.weight"]),
        depths=depths,
    )


TIN_FAMILY = Family(
    name="tin",
    config=TINConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config),
        Importer(RESNET.name, is_resnet, partial(load_layout, RESNET)),
    ),
)

TIN_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {"tin-r50": ("tin", {})}
