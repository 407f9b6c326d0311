"""MANet's entry in the table of families. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any

from microaction.models.errors import CheckpointError
from microaction.models.family import MA52_LICENSE, Family, Importer, StateDict, for_inference
from microaction.models.manet.config import ManetConfig
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, has_keys, load_layout, stage_depths

if TYPE_CHECKING:
    from microaction.models.manet.network import MANet


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
        head=config.head,
    )


def param_groups(model: "MANet", weight_decay: float) -> list[dict[str, Any]]:
    """Return the reference's parameter groups."""
    from microaction.models.manet.param_groups import parameter_groups

    return parameter_groups(model, weight_decay)


UNUSED_PUBLISHED_KEYS = ("action_p2_squeeze.weight", "action_p2_conv1.weight", "action_p2_expand.weight")
"""Ends of the keys of `backbone.layer{L}.{i}.conv1.conv.` that the published forward never uses: 10,951,424 numbers."""

_BLOCK = r"(backbone\.layer[1-4]\.\d+)\."
_STEM_AND_REST = (
    (r"backbone\.conv1\.conv\.weight", r"backbone.conv1.weight"),
    (r"backbone\.conv1\.bn\.(\w+)", r"backbone.bn1.\1"),
    (_BLOCK + r"conv([23])\.conv\.weight", r"\1.conv\2.weight"),
    (_BLOCK + r"conv([123])\.bn\.(\w+)", r"\1.bn\2.\3"),
    (_BLOCK + r"downsample\.conv\.weight", r"\1.downsample.0.weight"),
    (_BLOCK + r"downsample\.bn\.(\w+)", r"\1.downsample.1.\2"),
    MMACTION_CLASSIFIER,
)
AUTHORS = Layout(
    "a MANet checkpoint",
    (
        *_STEM_AND_REST,
        (_BLOCK + r"conv1\.conv\.net\.weight", r"\1.conv1.weight"),
        (_BLOCK + r"conv1\.conv\.fcce\.0\.weight", r"\1.se.squeeze.weight"),
        (_BLOCK + r"conv1\.conv\.fcce\.2\.weight", r"\1.se.excite.weight"),
        (r"cls_head\.fc_emb\.(weight|bias)", r"embedding.hidden.\1"),
        (r"cls_head\.fc_emb_t\.(weight|bias)", r"embedding.output.\1"),
    ),
    unused=tuple(_BLOCK + r"conv1\.conv\." + key.replace(".", r"\.") for key in UNUSED_PUBLISHED_KEYS),
)
TSM = Layout(
    "a TSM as mmaction2 saves it", (*_STEM_AND_REST, (_BLOCK + r"conv1\.conv\.net\.weight", r"\1.conv1.weight"))
)
TSN = Layout("a TSN as mmaction2 saves it", (*_STEM_AND_REST, (_BLOCK + r"conv1\.conv\.weight", r"\1.conv1.weight")))
RESNET = Layout(
    "a ResNet-50",
    (
        (r"(?:backbone\.)?((?:conv1|bn1|layer[1-4])\..+)", r"backbone.\1"),
        MMACTION_CLASSIFIER,
    ),
    unused=(r"fc\.(weight|bias)",),  # the classifier of ImageNet's classes
    may_lack=(r"(action|body|embedding)\..+", r".+\.se\..+"),
)


def is_published_manet(state_dict: StateDict) -> bool:
    """Return whether the weights are MANet's as its authors save them (mmcv's layout)."""
    return has_keys(state_dict, r".*\.conv1\.conv\.fcce\.0\.weight")


def is_tsm(state_dict: StateDict) -> bool:
    """Return whether the weights are TSM's as mmaction2 saves them."""
    return has_keys(state_dict, _BLOCK + r"conv1\.conv\.net\.weight") and not is_published_manet(state_dict)


def is_tsn(state_dict: StateDict) -> bool:
    """Return whether the weights are TSN's as mmaction2 saves them."""
    first = state_dict.get("backbone.layer1.0.conv1.conv.weight")
    return first is not None and first.ndim == 4


def is_resnet(state_dict: StateDict) -> bool:
    """Return whether the weights are those of a torchvision ResNet with bottlenecks."""
    return has_keys(state_dict, r"(?:backbone\.)?layer1\.0\.conv3\.weight")


def published_config(state_dict: StateDict, **changes: Any) -> ManetConfig:
    """Return the configuration of the network that weights in mmaction2's layout belong to. Raises `CheckpointError`."""
    try:
        if "joint_embedding" not in changes:
            changes["embedding_dim"] = len(state_dict["cls_head.fc_emb_t.weight"])
        return ManetConfig.model_validate(
            {
                "num_classes": len(state_dict["cls_head.fc_cls.weight"]),
                "width": len(state_dict["backbone.conv1.conv.weight"]),
                "depths": stage_depths(state_dict, r"backbone\.layer{}\.(\d+)\.", 4),
                **changes,
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"not a whole MANet checkpoint: {error!r}") from error


MANET_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "manet": ("manet", {}),
    "tsm": ("manet", {"se": False, "joint_embedding": False}),
    "tsn": ("manet", {"se": False, "joint_embedding": False, "shift": False}),
}

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
            partial(load_layout, AUTHORS),
            config_of=published_config,
            license=MA52_LICENSE,
        ),
        Importer(
            TSM.name, is_tsm, partial(load_layout, TSM), config_of=partial(published_config, **MANET_PRESETS["tsm"][1])
        ),
        Importer(
            TSN.name, is_tsn, partial(load_layout, TSN), config_of=partial(published_config, **MANET_PRESETS["tsn"][1])
        ),
        Importer("torchvision's ResNet-50", is_resnet, partial(load_layout, RESNET)),
    ),
)
