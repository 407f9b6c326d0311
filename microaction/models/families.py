"""The families of networks: the one table in which the rest of the project looks networks up.

A new family is one module and one entry in `FAMILIES`. Importing this module imports neither torch nor any network: the
functions of a `Family` import what they need when they are called.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from microaction.models.errors import CheckpointError
from microaction.models.family import Family, Importer
from microaction.models.manet.family import MANET, MANET_PRESETS
from microaction.models.settings import ModelConfig

if TYPE_CHECKING:
    from microaction.models.interface import Network

FAMILIES: dict[str, Family] = {MANET.name: MANET}
DEFAULT_FAMILY = MANET.name

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {**MANET_PRESETS}
"""Preset name → family, and the configuration in which it differs from the family's defaults."""


def family_of(config: ModelConfig) -> Family:
    """Return the family of a configuration."""
    return FAMILIES[config.family]


def register_family(family: Family) -> None:
    """Add a family that is defined outside of this package; workers call this with the family that they are sent."""
    FAMILIES[family.name] = family


def build_model(config: ModelConfig) -> "Network":
    """Return a network of the given configuration with random weights."""
    return family_of(config).build(config)


def create_model(name: str, **overrides: Any) -> "Network":
    """Return a network with random weights by the name of its preset: "manet", "tsm", "tsn", or a family.

    `overrides` are fields of the family's configuration, such as `num_classes=52` or `num_frames=8`. Raises `ValueError` for
    an unknown name or field.
    """
    family, changes = PRESETS.get(name, (name, {}))
    if family not in FAMILIES:
        raise ValueError(f"no network {name!r}: choose one of {', '.join(sorted({*PRESETS, *FAMILIES}))}")
    return build_model(FAMILIES[family].config.model_validate({"family": family} | changes | overrides))


def load_published(model: "Network", state_dict: Mapping[str, Any]) -> None:
    """Load published weights into a network, in whichever layout its family knows; the keys tell which.

    `state_dict` maps keys to tensors, bare or under the key `state_dict`. Strict: raises `CheckpointError` that lists unknown
    and missing keys and wrong shapes, and leaves the network unchanged.
    """
    weights = unwrap_state(state_dict)
    find_importer(weights)[1].load(model, weights)


def unwrap_state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a checkpoint file's content: the entry `state_dict`, or all of it."""
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            f"the entry 'state_dict' is a {type(weights).__name__}, not a mapping of names to tensors"
        )
    if not all(isinstance(key, str) for key in weights):
        raise CheckpointError("its keys are not all strings, so it holds no weights of a network")
    return weights


def find_importer(keys: Collection[str]) -> tuple[Family, Importer]:
    """Return the family and the importer whose layout has these keys. Raises `CheckpointError`."""
    for family in FAMILIES.values():
        for importer in family.importers:
            if importer.recognizes(keys):
                return family, importer
    known = "; ".join(importer.description for family in FAMILIES.values() for importer in family.importers)
    first = ", ".join([str(key) for key in keys][:3]) or "none"
    raise CheckpointError(f"its keys are of no known layout ({known}); the first keys are: {first}")
