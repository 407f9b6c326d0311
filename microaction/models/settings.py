"""The configuration of a network: a union of the families' own, tagged by `family`."""

from typing import Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, SerializeAsAny


class ModelConfig(BaseModel):
    """What the configurations of all families have. A family narrows `family` to its own name, as a `Literal`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str = Field(description="Kind of network.")
    num_classes: PositiveInt = Field(52, description="Number of labels.")
    num_frames: PositiveInt = Field(8, description="Frames of a clip that the network sees.")


def parse_model_config(value: Any) -> ModelConfig:
    """Return the configuration that a mapping describes, in the class of its family.

    Raises `ValueError` for a family that is not in `FAMILIES`, and pydantic's error for other values that do not fit.
    """
    from microaction.models.families import DEFAULT_FAMILY, FAMILIES

    if isinstance(value, ModelConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"a network's configuration must be a mapping, not {value!r}")
    family = value.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"family {family!r} must be one of {', '.join(FAMILIES)}")
    return FAMILIES[family].config.model_validate(value)


def default_model_config() -> ModelConfig:
    """Return the configuration of the paper's network."""
    return parse_model_config({})


AnyModelConfig = Annotated[SerializeAsAny[ModelConfig], BeforeValidator(parse_model_config)]
"""A field that holds the configuration of any family."""


def tagged_union() -> Any:
    """Return the type of a configuration of any family, for parsers that must know all fields: a union tagged by `family`."""
    from microaction.models.families import FAMILIES

    configs = tuple(family.config for family in FAMILIES.values())
    if len(configs) == 1:
        return configs[0]
    return Annotated[Union[configs], Field(discriminator="family")]  # noqa: UP007 - a union of a tuple
