"""The configuration of MANet. Importable without torch."""

from typing import Literal

from pydantic import Field, PositiveInt

from microaction.models.settings import ModelConfig


class ManetConfig(ModelConfig):
    """MANet; the defaults are the paper's network."""

    family: Literal["manet"] = Field("manet", description="Kind of network.")
    joint_embedding: bool = Field(
        True, description="Embedding branch, which the joint-embedding loss pulls towards the label vectors."
    )
    embedding_dim: PositiveInt = Field(
        300, description="Length of the label vectors. Training sets it to that of its label embeddings."
    )
    width: PositiveInt = Field(
        64,
        multiple_of=8,
        description="Channels of the stem, a multiple of 8: 64 for ResNet-50, fewer for small variants.",
    )
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (3, 4, 6, 3), description="Blocks of the four stages."
    )
    se: bool = Field(True, description="Squeeze-and-excitation.")
    shift: bool = Field(True, description="Temporal shift.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout before the heads.")
