"""The configuration of a network: a union of the families' own, tagged by `family`."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializeAsAny,
    create_model,
    model_validator,
)

from microaction.taxonomy import ACTIONS

DETECTOR = "detector"


class ModelConfig(BaseModel):
    """What the configurations of all families have. A family narrows `family` to its own name, as a `Literal`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str = Field(description="Kind of network.")
    num_classes: PositiveInt = Field(52, description="Number of labels.")
    num_frames: PositiveInt = Field(8, description="Frames of a clip that the network sees.")

    @property
    def num_rgb_frames(self) -> int:
        """Frames of the video that the network sees."""
        return self.num_frames

    @property
    def num_pose_frames(self) -> int:
        """Frames of the skeleton that the network sees."""
        return 0


class ClassifierConfig(ModelConfig):
    """What the configurations of families that classify clips have: a head on the features of a backbone."""

    head: Literal["plain", "hierarchical"] = Field(
        "plain",
        description="`plain` scores the actions; `hierarchical` the body parts and the actions within each: P(action) = "
        "P(body part) · P(action | body part).",
    )
    joint_embedding: bool = Field(
        False, description="Embedding branch, which the joint-embedding loss pulls towards the label vectors."
    )
    embedding_dim: PositiveInt = Field(
        300, description="Length of the label vectors. Training sets it to that of its label embeddings."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout before the heads.")

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head == "hierarchical" and self.num_classes != len(ACTIONS):
            raise ValueError(
                f"a hierarchical head knows the body parts of the {len(ACTIONS)} actions of MA-52, not of {self.num_classes} "
                "classes: use the plain head"
            )
        return self


def parse_model_config(value: Any) -> ModelConfig:
    """Return the configuration that a mapping describes, in the class of its family, or that a preset's name stands for.

    A mapping may name a `preset`, from which its other entries differ. With entries that only detectors have, the others are
    those of the detector's backbone.

    Raises `ValueError` for a family that is not in `FAMILIES`, and pydantic's error for other values that do not fit.
    """
    from microaction.models.families import DEFAULT_FAMILY, FAMILIES, PRESETS

    if isinstance(value, ModelConfig):
        return value
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, dict):
        raise ValueError(f"a network's configuration must be a mapping, not {value!r}")
    value = _split_detector(value)
    if "preset" in value:
        preset = value["preset"]
        if preset not in PRESETS:
            raise ValueError(f"no network {preset!r}: choose one of {', '.join(PRESETS)}")
        family, changes = PRESETS[preset]
        given = {name: field for name, field in value.items() if name != "preset"}
        value = {"family": family} | changes | given
    family = value.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"family {family!r} must be one of {', '.join(FAMILIES)}")
    return FAMILIES[family].config.model_validate(value)


def _split_detector(value: dict[str, Any]) -> dict[str, Any]:
    from microaction.models.families import FAMILIES

    fields = FAMILIES[DETECTOR].config.model_fields
    own = {name for name in fields if name not in ClassifierConfig.model_fields}
    if value.get("family") == DETECTOR or not own & value.keys():
        return value
    backbone = {name: entry for name, entry in value.items() if name not in own}
    return {"family": DETECTOR, "backbone": backbone} | {name: value[name] for name in value if name in own}


def default_model_config() -> ModelConfig:
    """Return the configuration of the paper's network."""
    return parse_model_config({})


AnyModelConfig = Annotated[SerializeAsAny[ModelConfig], BeforeValidator(parse_model_config)]
"""A field that holds the configuration of any family."""


def fields_of_all_families() -> Any:
    """Return the type of a configuration for parsers that must know all fields: a preset's name, and what differs from it.

    Its values become those of `parse_model_config`.
    """
    from microaction.models.families import FAMILIES, PRESETS

    users: dict[str, list[str]] = {}
    fields: dict[str, Any] = {}
    for family in FAMILIES.values():
        for name, field in family.config.model_fields.items():
            users.setdefault(name, []).append(family.name)
            fields.setdefault(name, field)
    definitions: dict[str, Any] = {
        "preset": (
            Literal[tuple(PRESETS)] | None,
            Field(None, description="The network by name; the other settings change it. `--model NAME` for short."),
        ),
        "family": (Literal[tuple(FAMILIES)] | None, Field(None, description=fields["family"].description)),
    }
    for name, field in fields.items():
        if name == "backbone":  # a network by itself
            definitions[name] = (
                str | dict[str, Any] | None,
                Field(None, description=f"{field.description} Of detector."),
            )
        elif name != "family":
            only = "" if len(users[name]) == len(FAMILIES) else f" Of {', '.join(users[name])}."
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            definitions[name] = (annotation | None, Field(None, description=f"{field.description}{only}"))
    merged = create_model("Network", __config__=ConfigDict(extra="forbid"), **definitions)
    return Annotated[merged, AfterValidator(lambda given: parse_model_config(given.model_dump(exclude_unset=True)))]
