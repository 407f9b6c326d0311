"""UniFormer's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, Tensors, load_layout, num_layers
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.uniformer.network import UniFormer

INIT_STD = 0.02
NUM_STAGES = 4
Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class UniFormerConfig(ClassifierConfig):
    """UniFormer; the defaults are UniFormer-S, whose head has no dropout."""

    family: Literal["uniformer"] = Field("uniformer", description="Kind of network.")
    num_frames: PositiveInt = Field(16, description="Frames of a clip.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the heads.")
    widths: Four = Field((64, 128, 320, 512), description="Channels of the four stages.")
    depths: Four = Field((3, 4, 8, 3), description="Blocks of the four stages.")
    head_width: PositiveInt = Field(64, description="Channels of a head of attention.")
    drop_path: NonNegativeFloat = Field(0.1, lt=1, description="Stochastic depth of the last block.")


def build(config: UniFormerConfig) -> "UniFormer":
    """Return a UniFormer with random weights."""
    from microaction.models.uniformer.network import UniFormer

    return UniFormer(
        head_options(config, INIT_STD),
        config.num_frames,
        widths=config.widths,
        depths=config.depths,
        head_width=config.head_width,
        drop_path=config.drop_path,
    )


_NAMES = r"((?:patch_embed\d|blocks\d\.\d+)\..+|norm\.\w+)"
MMACTION = Layout("a UniFormer as mmaction2 saves it", ((r"backbone\." + _NAMES, r"backbone.\1"), MMACTION_CLASSIFIER))
AUTHORS = Layout(
    "a UniFormer as its authors save it", ((_NAMES, r"backbone.\1"), (r"head\.(weight|bias)", r"action.\1"))
)


def inflated(model: "UniFormer", tensors: Tensors) -> Tensors:
    """Put the weights of 2D convolutions into the middle slice in time, with zeros around it."""
    expected = model.state_dict()
    result: Tensors = {}
    for name, tensor in tensors.items():
        own = expected.get(name)
        if own is not None and own.ndim == 5 and tensor.ndim == 4:
            weight = tensor.new_zeros((*tensor.shape[:2], own.shape[2], *tensor.shape[2:]))
            weight[:, :, own.shape[2] // 2] = tensor
            result[name] = weight
        else:
            result[name] = tensor
    return result


UNIFORMER_2D = Layout(
    "a 2D UniFormer",
    ((r"(?:backbone\.)?" + _NAMES, r"backbone.\1"), MMACTION_CLASSIFIER),
    unused=(r"head\.\w+",),
    may_lack=(r"(action|body|embedding)\..+",),
    transform=inflated,
)


def _patch_dimensions(state_dict: StateDict) -> int:
    weight = next((state_dict[key] for key in state_dict if key.endswith("patch_embed1.proj.weight")), None)
    return 0 if weight is None else int(weight.ndim)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are UniFormer's as mmaction2 saves them."""
    return "backbone.patch_embed1.proj.weight" in state_dict and _patch_dimensions(state_dict) == 5


def is_authors(state_dict: StateDict) -> bool:
    """Return whether the weights are UniFormer's as its authors save them."""
    return "patch_embed1.proj.weight" in state_dict and _patch_dimensions(state_dict) == 5


def is_2d(state_dict: StateDict) -> bool:
    """Return whether the weights are a 2D UniFormer's."""
    return _patch_dimensions(state_dict) == 4


def mmaction_config(state_dict: StateDict) -> UniFormerConfig:
    """Return the configuration of the network that the weights belong to."""
    stages = range(1, NUM_STAGES + 1)
    widths: Any = tuple(len(state_dict[f"backbone.patch_embed{stage}.proj.bias"]) for stage in stages)
    depths: Any = tuple(num_layers(state_dict, rf"backbone\.blocks{stage}\.(\d+)\.") for stage in stages)
    return UniFormerConfig(num_classes=len(state_dict["cls_head.fc_cls.bias"]), widths=widths, depths=depths)


UNIFORMER_FAMILY = Family(
    name="uniformer",
    config=UniFormerConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config),
        Importer(AUTHORS.name, is_authors, partial(load_layout, AUTHORS)),
        Importer(UNIFORMER_2D.name, is_2d, partial(load_layout, UNIFORMER_2D)),
    ),
)

UNIFORMER_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniformer-s": ("uniformer", {}),
    "uniformer-b": ("uniformer", {"depths": (5, 8, 20, 7), "drop_path": 0.3}),
}
