"""The entries of I3D and SlowFast in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.manet.config import RESNET50_DEPTHS, Depths
from microaction.models.manet.family import is_resnet
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, Tensors, has_keys, load_layout, stage_depths
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.resnet3d.network import I3D, SlowFast

INIT_STD = 0.01


class I3DConfig(ClassifierConfig):
    """I3D on ResNet-50."""

    family: Literal["i3d"] = Field("i3d", description="Kind of network.")
    num_frames: PositiveInt = Field(32, ge=8, description="Frames of a clip, at least 8.")
    width: PositiveInt = Field(64, description="Channels of the stem: 64 for ResNet-50, fewer for small variants.")
    depths: Depths = Field(RESNET50_DEPTHS, description="Blocks of the four stages.")


class SlowFastConfig(ClassifierConfig):
    """SlowFast on ResNet-50; the defaults are 4×16."""

    family: Literal["slowfast"] = Field("slowfast", description="Kind of network.")
    num_frames: PositiveInt = Field(32, description="Frames of a clip, a multiple of `ratio`.")
    ratio: PositiveInt = Field(8, description="The slow path sees every `ratio`-th frame.")
    lateral_kernel: PositiveInt = Field(5, description="Frames that a connection from fast to slow path sees; odd.")
    width: PositiveInt = Field(64, multiple_of=8, description="Channels of the slow path's stem, a multiple of 8.")
    depths: Depths = Field(RESNET50_DEPTHS, description="Blocks of the four stages.")


def build_i3d(config: I3DConfig) -> "I3D":
    """Return an I3D with random weights."""
    from microaction.models.resnet3d.network import I3D

    return I3D(head_options(config, INIT_STD), config.num_frames, width=config.width, depths=config.depths)


def build_slowfast(config: SlowFastConfig) -> "SlowFast":
    """Return a SlowFast with random weights."""
    from microaction.models.resnet3d.network import SlowFast

    return SlowFast(
        head_options(config, INIT_STD),
        config.num_frames,
        ratio=config.ratio,
        lateral_kernel=config.lateral_kernel,
        width=config.width,
        depths=config.depths,
    )


def convolution_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return rules for mmaction2's names of a residual network's convolutions and norms, with a prefix that is kept."""
    return (
        (rf"({prefix}(?:layer\d\.\d+\.)?)conv(\d)\.conv\.weight", r"\1conv\2.weight"),
        (rf"({prefix}(?:layer\d\.\d+\.)?)conv(\d)\.bn\.(\w+)", r"\1bn\2.\3"),
        (rf"({prefix}layer\d\.\d+\.downsample)\.conv\.weight", r"\1.0.weight"),
        (rf"({prefix}layer\d\.\d+\.downsample)\.bn\.(\w+)", r"\1.1.\2"),
    )


I3D_MMACTION = Layout("an I3D as mmaction2 saves it", (*convolution_rules(r"backbone\."), MMACTION_CLASSIFIER))
SLOWFAST_MMACTION = Layout(
    "a SlowFast as mmaction2 saves it",
    (
        *convolution_rules(r"backbone\.(?:slow|fast)_path\."),
        (r"(backbone\.slow_path\.\w+_lateral)\.conv\.weight", r"\1.weight"),
        MMACTION_CLASSIFIER,
    ),
)


def inflated(model: "I3D", tensors: Tensors) -> Tensors:
    """Repeat the weights of 2D convolutions in time, divided by the length of the kernel."""
    expected = model.state_dict()
    result: Tensors = {}
    for name, tensor in tensors.items():
        own = expected.get(name)
        if own is not None and own.ndim == 5 and tensor.ndim == 4:
            frames = own.shape[2]
            result[name] = tensor[:, :, None].repeat(1, 1, frames, 1, 1) / frames
        else:
            result[name] = tensor
    return result


I3D_INFLATED = Layout(
    "torchvision's ResNet-50",
    (
        (r"(?:backbone\.)?((?:conv1|bn1|layer\d)\..+)", r"backbone.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(r"fc\.(weight|bias)",),
    may_lack=(r"(action|body|embedding)\..+",),
    transform=inflated,
)


def is_i3d(state_dict: StateDict) -> bool:
    """Return whether the weights are I3D's as mmaction2 saves them."""
    stem = state_dict.get("backbone.conv1.conv.weight")
    return stem is not None and stem.ndim == 5


def is_slowfast(state_dict: StateDict) -> bool:
    """Return whether the weights are SlowFast's as mmaction2 saves them."""
    return has_keys(state_dict, r"backbone\.slow_path\.conv1_lateral\.conv\.weight")


def _depths(state_dict: StateDict, prefix: str) -> Any:
    return stage_depths(state_dict, prefix + r"layer{}\.(\d+)\.", 4)


def i3d_config(state_dict: StateDict) -> I3DConfig:
    """Return the configuration of the network that the weights belong to."""
    return I3DConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        width=len(state_dict["backbone.conv1.conv.weight"]),
        depths=_depths(state_dict, r"backbone\."),
    )


def slowfast_config(state_dict: StateDict) -> SlowFastConfig:
    """Return the configuration of the network that the weights belong to; its 4×16 or 8×8 form is told by a kernel."""
    kernel = state_dict["backbone.slow_path.conv1_lateral.conv.weight"].shape[2]
    return SlowFastConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        width=len(state_dict["backbone.slow_path.conv1.conv.weight"]),
        depths=_depths(state_dict, r"backbone\.slow_path\."),
        lateral_kernel=kernel,
        ratio=8 if kernel == 5 else 4,
    )


I3D_FAMILY = Family(
    name="i3d",
    config=I3DConfig,
    build=build_i3d,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(I3D_MMACTION.name, is_i3d, partial(load_layout, I3D_MMACTION), config_of=i3d_config),
        Importer(I3D_INFLATED.name, is_resnet, partial(load_layout, I3D_INFLATED)),
    ),
)

SLOWFAST_FAMILY = Family(
    name="slowfast",
    config=SlowFastConfig,
    build=build_slowfast,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(
            SLOWFAST_MMACTION.name, is_slowfast, partial(load_layout, SLOWFAST_MMACTION), config_of=slowfast_config
        ),
    ),
)

RESNET3D_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "i3d-r50": ("i3d", {}),
    "slowfast-r50-4x16": ("slowfast", {}),
    "slowfast-r50-8x8": ("slowfast", {"ratio": 4, "lateral_kernel": 7}),
}
