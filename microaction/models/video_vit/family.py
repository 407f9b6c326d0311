"""The entry of VideoMAE's vision transformer in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, Tensors, has_keys, load_layout, num_layers
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.video_vit.network import VideoViT

INIT_STD = 0.02
HEAD_CHANNELS = 64


class VideoViTConfig(ClassifierConfig):
    """VideoMAE's vision transformer; the defaults are ViT-S/16."""

    family: Literal["video-vit"] = Field("video-vit", description="Kind of network.")
    num_frames: PositiveInt = Field(16, multiple_of=2, description="Frames of a clip, an even number.")
    side: PositiveInt = Field(224, description="Side in pixels of the frames that the network is bound to.")
    width: PositiveInt = Field(384, description="Channels of a token.")
    depth: PositiveInt = Field(12, description="Number of blocks.")
    num_heads: PositiveInt = Field(6, description="Heads of attention.")
    patch: PositiveInt = Field(16, description="Side in pixels of a token's patch, a divisor of `side`.")
    mlp_ratio: PositiveFloat = Field(4.0, description="Hidden width of the MLPs, times `width`.")
    drop_path: NonNegativeFloat = Field(0.1, lt=1, description="Stochastic depth of the last block.")


def build(config: VideoViTConfig) -> "VideoViT":
    """Return a vision transformer with random weights."""
    from microaction.models.video_vit.network import VideoViT

    return VideoViT(
        head_options(config, INIT_STD),
        config.num_frames,
        side=config.side,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        patch=config.patch,
        mlp_ratio=config.mlp_ratio,
        drop_path=config.drop_path,
    )


_PLAIN = r"blocks\.(\d+)\.(norm[12]\.\w+|attn\.(?:q_bias|v_bias|qkv\.weight|proj\.\w+))"
_SINUSOID = r"(?:backbone\.|encoder\.|model\.)*pos_embed"
MMACTION = Layout(
    "a VideoMAE network as mmaction2 saves it",
    (
        (r"backbone\.patch_embed\.projection\.(\w+)", r"backbone.patch_embed.\1"),
        (r"backbone\." + _PLAIN, r"backbone.blocks.\1.\2"),
        (r"backbone\.blocks\.(\d+)\.mlp\.layers\.0\.0\.(\w+)", r"backbone.blocks.\1.mlp.fc1.\2"),
        (r"backbone\.blocks\.(\d+)\.mlp\.layers\.1\.(\w+)", r"backbone.blocks.\1.mlp.fc2.\2"),
        (r"backbone\.fc_norm\.(\w+)", r"backbone.fc_norm.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(_SINUSOID,),
)

_PREFIX = r"(?:model\.|encoder\.|module\.)*"
AUTHORS = Layout(
    "a VideoMAE network as its authors save it",
    (
        (_PREFIX + r"patch_embed\.proj\.(\w+)", r"backbone.patch_embed.\1"),
        (_PREFIX + _PLAIN, r"backbone.blocks.\1.\2"),
        (_PREFIX + r"blocks\.(\d+)\.mlp\.(fc[12])\.(\w+)", r"backbone.blocks.\1.mlp.\2.\3"),
        (_PREFIX + r"fc_norm\.(\w+)", r"backbone.fc_norm.\1"),
        (r"(?:model\.|module\.)*head\.(weight|bias)", r"action.\1"),
    ),
    unused=(_SINUSOID,),
)

# Pre-training: the encoder's last norm is not the classifier's, and the decoder is not needed.
PRETRAINED = Layout(
    "a VideoMAE encoder from pre-training",
    AUTHORS.rules,
    unused=(
        _SINUSOID,
        r"(?:module\.)*encoder\.norm\.\w+",
        r"(?:module\.)*(?:decoder|encoder_to_decoder)\..+",
        r"(?:module\.)*mask_token",
    ),
    may_lack=(r"(action|body|embedding)\..+", r"backbone\.fc_norm\..+"),
)


def joined(model: "VideoViT", tensors: Tensors) -> Tensors:  # noqa: ARG001 - the tensors alone decide
    """Join the weights of queries, keys and values, and drop the keys' biases if they are zero."""
    import torch

    result: Tensors = {}
    for name, tensor in tensors.items():
        if ".attn.query.weight" in name:
            block = name.removesuffix("query.weight")
            parts = [tensors[f"{block}{part}.weight"] for part in ("query", "key", "value")]
            result[f"{block}qkv.weight"] = torch.cat(parts)
        elif ".attn.query.bias" in name:
            result[name.replace("query.bias", "q_bias")] = tensor
        elif ".attn.value.bias" in name:
            result[name.replace("value.bias", "v_bias")] = tensor
        elif ".attn.key.bias" in name:
            if tensor.any():
                raise ValueError(f"{name} is not zero")
        elif ".attn.key.weight" not in name and ".attn.value.weight" not in name:
            result[name] = tensor
    return result


_HF = r"videomae\.encoder\.layer\.(\d+)\."
TRANSFORMERS = Layout(
    "a VideoMAE network as transformers saves it",
    (
        (r"videomae\.embeddings\.patch_embeddings\.projection\.(\w+)", r"backbone.patch_embed.\1"),
        (_HF + r"attention\.attention\.(q_bias|v_bias)", r"backbone.blocks.\1.attn.\2"),
        (_HF + r"attention\.attention\.(query|key|value)\.(\w+)", r"backbone.blocks.\1.attn.\2.\3"),
        (_HF + r"attention\.output\.dense\.(\w+)", r"backbone.blocks.\1.attn.proj.\2"),
        (_HF + r"layernorm_before\.(\w+)", r"backbone.blocks.\1.norm1.\2"),
        (_HF + r"layernorm_after\.(\w+)", r"backbone.blocks.\1.norm2.\2"),
        (_HF + r"intermediate\.dense\.(\w+)", r"backbone.blocks.\1.mlp.fc1.\2"),
        (_HF + r"output\.dense\.(\w+)", r"backbone.blocks.\1.mlp.fc2.\2"),
        (r"fc_norm\.(\w+)", r"backbone.fc_norm.\1"),
        (r"classifier\.(weight|bias)", r"action.\1"),
    ),
    unused=(r"videomae\.embeddings\.position_embeddings",),
    transform=joined,
)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are VideoMAE's as mmaction2 saves them."""
    return has_keys(state_dict, r"backbone\.patch_embed\.projection\.weight", r"backbone\.blocks\.\d+\.attn\.q_bias")


def is_authors(state_dict: StateDict) -> bool:
    """Return whether the weights are a whole network of VideoMAE's authors."""
    return has_keys(state_dict, _PREFIX + r"blocks\.\d+\.attn\.q_bias", _PREFIX + r"fc_norm\.weight")


def is_pretrained(state_dict: StateDict) -> bool:
    """Return whether the weights are an encoder of VideoMAE's authors before fine-tuning."""
    return has_keys(state_dict, _PREFIX + r"blocks\.\d+\.attn\.q_bias") and not is_authors(state_dict)


def is_transformers(state_dict: StateDict) -> bool:
    """Return whether the weights are VideoMAE's as transformers saves them."""
    return has_keys(state_dict, _HF + r"attention\.attention\.query\.weight")


def mmaction_config(state_dict: StateDict) -> VideoViTConfig:
    """Return the configuration of the network that the weights belong to; frames and side are not among them."""
    patch = state_dict["backbone.patch_embed.projection.weight"]
    width, depth = len(patch), num_layers(state_dict, r"backbone\.blocks\.(\d+)\.")
    return VideoViTConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        width=width,
        depth=depth,
        num_heads=max(1, width // HEAD_CHANNELS),
        patch=patch.shape[-1],
    )


VIDEO_VIT_FAMILY = Family(
    name="video-vit",
    config=VideoViTConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config),
        Importer(TRANSFORMERS.name, is_transformers, partial(load_layout, TRANSFORMERS)),
        Importer(AUTHORS.name, is_authors, partial(load_layout, AUTHORS)),
        Importer(PRETRAINED.name, is_pretrained, partial(load_layout, PRETRAINED)),
    ),
)

VIDEO_VIT_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit-s": ("video-vit", {}),
    "vit-b": ("video-vit", {"width": 768, "num_heads": 12}),
    "vit-l": ("video-vit", {"width": 1024, "depth": 24, "num_heads": 16, "drop_path": 0.2}),
}
