"""TimeSformer's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from microaction.models.family import Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, has_keys, load_layout, num_layers
from microaction.models.param_groups import one_group
from microaction.models.settings import ClassifierConfig

if TYPE_CHECKING:
    from microaction.models.timesformer.network import TimeSformer

INIT_STD = 0.02
HEAD_CHANNELS = 64
PATCH = 16


class TimeSformerConfig(ClassifierConfig):
    """TimeSformer with divided attention; the defaults are ViT-B/16."""

    family: Literal["timesformer"] = Field("timesformer", description="Kind of network.")
    side: PositiveInt = Field(
        224, multiple_of=PATCH, description="Side in pixels of the frames that the network is bound to."
    )
    width: PositiveInt = Field(768, description="Channels of a token.")
    depth: PositiveInt = Field(12, description="Number of blocks.")
    num_heads: PositiveInt = Field(12, description="Heads of attention.")
    drop_path: NonNegativeFloat = Field(0.1, lt=1, description="Stochastic depth of the last block.")


def build(config: TimeSformerConfig) -> "TimeSformer":
    """Return a TimeSformer with random weights."""
    from microaction.models.timesformer.network import TimeSformer

    return TimeSformer(
        head_options(config, INIT_STD),
        config.num_frames,
        side=config.side,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        drop_path=config.drop_path,
    )


_MM = r"backbone\.transformer_layers\.layers\.(\d+)\."
MMACTION = Layout(
    "a TimeSformer as mmaction2 saves it",
    (
        (r"backbone\.(cls_token|pos_embed|time_embed)", r"backbone.\1"),
        (r"backbone\.patch_embed\.projection\.(\w+)", r"backbone.patch_embed.\1"),
        (r"backbone\.norm\.(\w+)", r"backbone.norm.\1"),
        (_MM + r"attentions\.0\.norm\.(\w+)", r"backbone.blocks.\1.time_norm.\2"),
        (_MM + r"attentions\.1\.norm\.(\w+)", r"backbone.blocks.\1.space_norm.\2"),
        (_MM + r"attentions\.0\.attn\.in_proj_(\w+)", r"backbone.blocks.\1.time_attn.qkv.\2"),
        (_MM + r"attentions\.1\.attn\.in_proj_(\w+)", r"backbone.blocks.\1.space_attn.qkv.\2"),
        (_MM + r"attentions\.0\.attn\.out_proj\.(\w+)", r"backbone.blocks.\1.time_attn.proj.\2"),
        (_MM + r"attentions\.1\.attn\.out_proj\.(\w+)", r"backbone.blocks.\1.space_attn.proj.\2"),
        (_MM + r"attentions\.0\.temporal_fc\.(\w+)", r"backbone.blocks.\1.time_fc.\2"),
        (_MM + r"ffns\.0\.norm\.(\w+)", r"backbone.blocks.\1.norm.\2"),
        (_MM + r"ffns\.0\.layers\.0\.0\.(\w+)", r"backbone.blocks.\1.mlp.fc1.\2"),
        (_MM + r"ffns\.0\.layers\.1\.(\w+)", r"backbone.blocks.\1.mlp.fc2.\2"),
        MMACTION_CLASSIFIER,
    ),
)

_HF = r"timesformer\.encoder\.layer\.(\d+)\."
TRANSFORMERS = Layout(
    "a TimeSformer as transformers saves it",
    (
        (r"timesformer\.embeddings\.cls_token", r"backbone.cls_token"),
        (r"timesformer\.embeddings\.position_embeddings", r"backbone.pos_embed"),
        (r"timesformer\.embeddings\.time_embeddings", r"backbone.time_embed"),
        (r"timesformer\.embeddings\.patch_embeddings\.projection\.(\w+)", r"backbone.patch_embed.\1"),
        (r"timesformer\.layernorm\.(\w+)", r"backbone.norm.\1"),
        (_HF + r"temporal_layernorm\.(\w+)", r"backbone.blocks.\1.time_norm.\2"),
        (_HF + r"layernorm_before\.(\w+)", r"backbone.blocks.\1.space_norm.\2"),
        (_HF + r"layernorm_after\.(\w+)", r"backbone.blocks.\1.norm.\2"),
        (_HF + r"temporal_attention\.attention\.qkv\.(\w+)", r"backbone.blocks.\1.time_attn.qkv.\2"),
        (_HF + r"temporal_attention\.output\.dense\.(\w+)", r"backbone.blocks.\1.time_attn.proj.\2"),
        (_HF + r"temporal_dense\.(\w+)", r"backbone.blocks.\1.time_fc.\2"),
        (_HF + r"attention\.attention\.qkv\.(\w+)", r"backbone.blocks.\1.space_attn.qkv.\2"),
        (_HF + r"attention\.output\.dense\.(\w+)", r"backbone.blocks.\1.space_attn.proj.\2"),
        (_HF + r"intermediate\.dense\.(\w+)", r"backbone.blocks.\1.mlp.fc1.\2"),
        (_HF + r"output\.dense\.(\w+)", r"backbone.blocks.\1.mlp.fc2.\2"),
        (r"classifier\.(weight|bias)", r"action.\1"),
    ),
)

_OWN = r"(?:model\.)?blocks\.(\d+)\."
AUTHORS = Layout(
    "a TimeSformer as its authors save it",
    (
        (r"(?:model\.)?(cls_token|pos_embed|time_embed)", r"backbone.\1"),
        (r"(?:model\.)?patch_embed\.proj\.(\w+)", r"backbone.patch_embed.\1"),
        (r"(?:model\.)?norm\.(\w+)", r"backbone.norm.\1"),
        (_OWN + r"temporal_norm1\.(\w+)", r"backbone.blocks.\1.time_norm.\2"),
        (_OWN + r"norm1\.(\w+)", r"backbone.blocks.\1.space_norm.\2"),
        (_OWN + r"norm2\.(\w+)", r"backbone.blocks.\1.norm.\2"),
        (_OWN + r"temporal_attn\.(qkv|proj)\.(\w+)", r"backbone.blocks.\1.time_attn.\2.\3"),
        (_OWN + r"attn\.(qkv|proj)\.(\w+)", r"backbone.blocks.\1.space_attn.\2.\3"),
        (_OWN + r"temporal_fc\.(\w+)", r"backbone.blocks.\1.time_fc.\2"),
        (_OWN + r"mlp\.(fc[12])\.(\w+)", r"backbone.blocks.\1.mlp.\2.\3"),
        (r"(?:model\.)?head\.(weight|bias)", r"action.\1"),
    ),
)


def is_mmaction(state_dict: StateDict) -> bool:
    """Return whether the weights are TimeSformer's as mmaction2 saves them."""
    return has_keys(state_dict, _MM + r"attentions\.0\.temporal_fc\.weight")


def is_transformers(state_dict: StateDict) -> bool:
    """Return whether the weights are TimeSformer's as transformers saves them."""
    return has_keys(state_dict, _HF + r"temporal_dense\.weight")


def is_authors(state_dict: StateDict) -> bool:
    """Return whether the weights are TimeSformer's as its authors save them."""
    return has_keys(state_dict, _OWN + r"temporal_fc\.weight")


def mmaction_config(state_dict: StateDict) -> TimeSformerConfig:
    """Return the configuration of the network that the weights belong to."""
    num_patches = state_dict["backbone.pos_embed"].shape[1] - 1
    width = state_dict["backbone.pos_embed"].shape[2]
    return TimeSformerConfig(
        num_classes=len(state_dict["cls_head.fc_cls.bias"]),
        num_frames=state_dict["backbone.time_embed"].shape[1],
        side=PATCH * round(num_patches**0.5),
        width=width,
        depth=num_layers(state_dict, _MM),
        num_heads=max(1, width // HEAD_CHANNELS),
    )


TIMESFORMER_FAMILY = Family(
    name="timesformer",
    config=TimeSformerConfig,
    build=build,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(
        Importer(MMACTION.name, is_mmaction, partial(load_layout, MMACTION), config_of=mmaction_config),
        Importer(TRANSFORMERS.name, is_transformers, partial(load_layout, TRANSFORMERS)),
        Importer(AUTHORS.name, is_authors, partial(load_layout, AUTHORS)),
    ),
)
