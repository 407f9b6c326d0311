"""The configuration of MANet. Importable without torch."""

from typing import Literal

from pydantic import Field, PositiveInt

from microaction.models.settings import ClassifierConfig

Depths = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
RESNET50_DEPTHS: Depths = (3, 4, 6, 3)


class ManetConfig(ClassifierConfig):
    """MANet; the defaults are the paper's network."""

    family: Literal["manet"] = Field("manet", description="Kind of network.")
    joint_embedding: bool = Field(
        True, description="Embedding branch, which the joint-embedding loss pulls towards the label vectors."
    )
    width: PositiveInt = Field(
        64,
        multiple_of=8,
        description="Channels of the stem, a multiple of 8: 64 for ResNet-50, fewer for small variants.",
    )
    depths: Depths = Field(RESNET50_DEPTHS, description="Blocks of the four stages.")
    se: bool = Field(True, description="Squeeze-and-excitation.")
    shift: bool = Field(True, description="Temporal shift.")
