"""Video Swin's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from microaction.models.family import MA52_LICENSE, Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, Tensors, has_keys, load_layout, num_layers
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.video_swin.network import VideoSwin

INIT_STD = 0.02
NUM_STAGES = 4


class VideoSwinConfig(ClassifierConfig):
    """Video Swin Transformer; the defaults are Swin-T."""

    family: Literal["video-swin"] = Field("video-swin", description="Kind of network.")
    num_frames: PositiveInt = Field(32, description="Frames of a clip.")
    width: PositiveInt = Field(96, description="Channels of the first stage.")
    depths: tuple[PositiveInt, ...] = Field((2, 2, 6, 2), description="Blocks of the stages.")
    num_heads: tuple[PositiveInt, ...] = Field((3, 6, 12, 24), description="Heads of attention in the stages.")
    drop_path: NonNegativeFloat = Field(0.1, lt=1, description="Stochastic depth of the last block.")


def build(config: VideoSwinConfig) -> "VideoSwin":
    """Return a Video Swin Transformer with random weights."""
    from microaction.models.video_swin.network import VideoSwin

    return VideoSwin(
        head_options(config, INIT_STD),
        config.num_frames,
        width=config.width,
        depths=config.depths,
        num_heads=config.num_heads,
        drop_path=config.drop_path,
    )


_BLOCK = r"layers\.\d+\.blocks\.\d+\."
_PARTS = r"(norm[12]\.\w+|attn\.(?:qkv|proj)\.\w+|attn\.relative_position_bias_table|mlp\.fc[12]\.\w+)"
_OTHERS = r"(patch_embed\.\w+\.\w+|layers\.\d+\.downsample\.(?:norm|reduction)\.\w+)"
_DERIVED = r".*\.(attn\.relative_position_index|attn_mask)"

MMACTION = Layout(
    "a Video Swin Transformer as mmaction2 saves it",
    (
        (rf"backbone\.({_BLOCK}){_PARTS}", r"backbone.\1\2"),
        (rf"backbone\.{_OTHERS}", r"backbone.\1"),
        (r"backbone\.norm3\.(\w+)", r"backbone.norm.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(_DERIVED,),
)


def renumbered(model: "VideoSwin", tensors: Tensors) -> Tensors:  # noqa: ARG001 - the tensors alone decide
    """Halve the numbers of torchvision's stages, which count the mergings between them too."""
    result = {}
    for name, tensor in tensors.items():
        head, mark, rest = name.partition("features.")
        if mark:
            number, _, end = rest.partition(".")
            result[f"{head}layers.{int(number) // 2}.{end}"] = tensor
        else:
            result[name] = tensor
    return result


TORCHVISION = Layout(
    "torchvision's swin3d",
    (
        (r"patch_embed\.(\w+\.\w+)", r"backbone.patch_embed.\1"),
        (r"features\.(\d*[02468])\.(\d+)\.mlp\.0\.(\w+)", r"backbone.features.\1.blocks.\2.mlp.fc1.\3"),
        (r"features\.(\d*[02468])\.(\d+)\.mlp\.3\.(\w+)", r"backbone.features.\1.blocks.\2.mlp.fc2.\3"),
        (
            r"features\.(\d*[02468])\.(\d+)\.(norm[12]\.\w+|attn\.(?:qkv|proj)\.\w+|attn\.relative_position_bias_table)",
            r"backbone.features.\1.blocks.\2.\3",
        ),
        (r"features\.(\d*[13579])\.(norm|reduction)\.(\w+)", r"backbone.features.\1.downsample.\2.\3"),
        (r"norm\.(\w+)", r"backbone.norm.\1"),
        (r"head\.(\w+)", r"action.\1"),
    ),
    unused=(_DERIVED,),
    transform=renumbered,
)


def inflated(model: "VideoSwin", tensors: Tensors) -> Tensors:  # noqa: ARG001 - the tensors alone decide
    """Repeat patches and tables of biases of a 2D Swin in time; a table of another window is resized first.

    Source: mmaction2's rule.
    """
    from torch.nn import functional

    from microaction.models.video_swin.network import PATCH, WINDOW

    result = dict(tensors)
    patch = "backbone.patch_embed.proj.weight"
    if patch in result:
        result[patch] = result[patch][:, :, None].repeat(1, 1, PATCH[0], 1, 1) / PATCH[0]
    side = 2 * WINDOW[1] - 1
    for name, table in tensors.items():
        if name.endswith("relative_position_bias_table"):
            own_side = round(len(table) ** 0.5)
            image = table.T.reshape(1, -1, own_side, own_side).float()
            if own_side != side:
                image = functional.interpolate(image, size=(side, side), mode="bicubic")
            result[name] = image.flatten(2)[0].T.to(table.dtype).repeat(2 * WINDOW[0] - 1, 1)
    return result


SWIN_2D = Layout(
    "a 2D Swin Transformer",
    (
        (rf"(?:backbone\.)?({_BLOCK}){_PARTS}", r"backbone.\1\2"),
        (rf"(?:backbone\.)?{_OTHERS}", r"backbone.\1"),
        (r"(?:backbone\.)?norm\.(\w+)", r"backbone.norm.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(_DERIVED, r"head\.\w+"),
    may_lack=(r"(action|body|embedding)\..+",),
    transform=inflated,
)


def _patch_dimensions(state_dict: StateDict) -> int:
    weight = next((state_dict[key] for key in state_dict if key.endswith("patch_embed.proj.weight")), None)
    return 0 if weight is None else int(weight.ndim)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are Video Swin's as mmaction2 saves them."""
    return has_keys(state_dict, rf"backbone\.{_BLOCK}attn\.qkv\.weight", r"backbone\.norm3\.weight")


def is_torchvision(state_dict: StateDict) -> bool:
    """Return whether the weights are those of torchvision's swin3d."""
    table = r"features\.0\.0\.attn\.relative_position_bias_table"
    return has_keys(state_dict, table) and _patch_dimensions(state_dict) == 5


def is_2d(state_dict: StateDict) -> bool:
    """Return whether the weights are a 2D Swin's in its authors' layout."""
    return has_keys(state_dict, rf"(?:backbone\.)?{_BLOCK}attn\.qkv\.weight") and _patch_dimensions(state_dict) == 4


def mmaction_config(state_dict: StateDict) -> VideoSwinConfig:
    """Return the configuration of the network that the weights belong to."""
    stages = [rf"backbone\.layers\.{stage}\.blocks\.(\d+)\." for stage in range(NUM_STAGES)]
    tables = [
        state_dict[f"backbone.layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(NUM_STAGES)
    ]
    return VideoSwinConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        width=len(state_dict["backbone.patch_embed.proj.bias"]),
        depths=tuple(num_layers(state_dict, stage) for stage in stages),
        num_heads=tuple(table.shape[1] for table in tables),
    )


VIDEO_SWIN_FAMILY = Family(
    name="video-swin",
    config=VideoSwinConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(
            MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config, license=MA52_LICENSE
        ),
        Importer(TORCHVISION.name, is_torchvision, partial(load_layout, TORCHVISION)),
        Importer(SWIN_2D.name, is_2d, partial(load_layout, SWIN_2D)),
    ),
)

VIDEO_SWIN_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "video-swin-t": ("video-swin", {}),
    "video-swin-s": ("video-swin", {"depths": (2, 2, 18, 2), "drop_path": 0.2}),
    "video-swin-b": (
        "video-swin",
        {"width": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path": 0.3},
    ),
}
