"""The families of networks: the one table in which the rest of the project looks networks up.

A new family is one module and one entry in `FAMILIES`. Importing this module imports neither torch nor any network: the
functions of a `Family` import what they need when they are called.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from microaction.models.c3d.family import C3D_FAMILY
from microaction.models.detector.family import DETECTOR_FAMILY
from microaction.models.errors import CheckpointError
from microaction.models.family import Family, Importer
from microaction.models.manet.family import MANET, MANET_PRESETS
from microaction.models.pcan.family import PCAN_FAMILY, PCAN_POSE_FAMILY, PCAN_RGB_FAMILY
from microaction.models.resnet3d.family import I3D_FAMILY, RESNET3D_PRESETS, SLOWFAST_FAMILY
from microaction.models.settings import ModelConfig
from microaction.models.timesformer.family import TIMESFORMER_FAMILY
from microaction.models.tin.family import TIN_FAMILY, TIN_PRESETS
from microaction.models.uniformer.family import UNIFORMER_FAMILY, UNIFORMER_PRESETS
from microaction.models.video_swin.family import VIDEO_SWIN_FAMILY, VIDEO_SWIN_PRESETS
from microaction.models.video_vit.family import VIDEO_VIT_FAMILY, VIDEO_VIT_PRESETS

if TYPE_CHECKING:
    from microaction.models.interface import Network

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        MANET,
        C3D_FAMILY,
        I3D_FAMILY,
        SLOWFAST_FAMILY,
        TIN_FAMILY,
        VIDEO_SWIN_FAMILY,
        TIMESFORMER_FAMILY,
        UNIFORMER_FAMILY,
        VIDEO_VIT_FAMILY,
        PCAN_FAMILY,
        PCAN_RGB_FAMILY,
        PCAN_POSE_FAMILY,
        DETECTOR_FAMILY,
    )
}
DEFAULT_FAMILY = MANET.name
WEIGHTS_ENTRIES = ("state_dict", "model", "module")

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    **MANET_PRESETS,
    "c3d": (C3D_FAMILY.name, {}),
    **RESNET3D_PRESETS,
    **TIN_PRESETS,
    **VIDEO_SWIN_PRESETS,
    "timesformer": (TIMESFORMER_FAMILY.name, {}),
    **UNIFORMER_PRESETS,
    **VIDEO_VIT_PRESETS,
    **{family.name: (family.name, {}) for family in (PCAN_FAMILY, PCAN_RGB_FAMILY, PCAN_POSE_FAMILY)},
}
"""Preset name → family, and the configuration in which it differs from the family's defaults."""


def family_of(config: ModelConfig) -> Family:
    """Return the family of a configuration."""
    return FAMILIES[config.family]


def register_family(family: Family) -> None:
    """Add a family that is defined outside of this package; workers call this with the family that they are sent."""
    FAMILIES[family.name] = family


def build_model(config: ModelConfig) -> "Network":
    """Return a network of the given configuration with random weights."""
    network = family_of(config).build(config)
    network.family = config.family
    return network


def create_model(name: str, **overrides: Any) -> "Network":
    """Return a network with random weights by the name of a preset, such as "manet" or "video-swin-t", or of another family.

    `overrides` are fields of the family's configuration, such as `num_classes=52` or `num_frames=8`. Raises `ValueError` for
    an unknown name or field.
    """
    family, changes = PRESETS.get(name, (name, {}))
    if family not in FAMILIES:
        raise ValueError(f"no network {name!r}: choose one of {', '.join(sorted({*PRESETS, *FAMILIES}))}")
    return build_model(FAMILIES[family].config.model_validate({"family": family} | changes | overrides))


def load_published(model: "Network", state_dict: Mapping[str, Any], *, any_head: bool = False) -> None:
    """Load published weights into a network, in whichever layout its family knows; the keys tell which.

    `state_dict` maps keys to tensors, bare or under the key `state_dict`, `model` or `module`. Strict: raises `CheckpointError`
    that lists unknown and missing keys and wrong shapes, and leaves the network unchanged. With `any_head`, heads that the
    weights lack or that are of another size stay as they are: for weights to start training with.
    """
    weights = unwrap_state(state_dict)
    families = [FAMILIES[model.family]] if model.family in FAMILIES else list(FAMILIES.values())
    find_importer(weights, families)[1].load(model, weights, any_head=any_head)


def unwrap_state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a checkpoint file's content: the entry `state_dict`, `model` or `module`, or all of it."""
    entry = next((name for name in WEIGHTS_ENTRIES if name in content), None)
    weights = content if entry is None else content[entry]
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"the entry {entry!r} is a {type(weights).__name__}, not a mapping of names to tensors")
    if not all(isinstance(key, str) for key in weights):
        raise CheckpointError("its keys are not all strings, so it holds no weights of a network")
    return weights


def find_importer(weights: Mapping[str, Any], families: Collection[Family] | None = None) -> tuple[Family, Importer]:
    """Return the family, of those given or of all, and the importer whose layout the weights have. Raises `CheckpointError`."""
    families = list(FAMILIES.values()) if families is None else families
    for family in families:
        for importer in family.importers:
            if importer.recognizes(weights):
                return family, importer
    known = "; ".join(importer.description for family in families for importer in family.importers)
    first = ", ".join([str(key) for key in weights][:3]) or "none"
    raise CheckpointError(f"its keys are of no known layout ({known}); the first keys are: {first}")
