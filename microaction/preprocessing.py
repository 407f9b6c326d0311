"""How a decoded frame becomes the network's input: part of every checkpoint, shared by training, evaluation and labeling."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

# ImageNet statistics of RGB on 0..255; the reference normalizes with them.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


SamplingRule: TypeAlias = Literal["segments", "consecutive", "uniform", "bins"]
Fit: TypeAlias = Literal["crop", "pad", "people"]


class PersonScale(BaseModel):
    """How people lie in the clips that a network was trained on: medians, as fractions of the clip's height unless said
    otherwise. The defaults are those of MA-52's published samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: PositiveFloat = Field(0.67, description="Height of the person.")
    shoulders_y: float = Field(0.33, description="Height of the shoulders, from the top.")
    center_x: float = Field(0.5, description="Center of the person, from the left, as a fraction of the clip's width.")
    aspect: PositiveFloat = Field(5 / 6, description="Width of the clip over its height.")
    shoulder_width: PositiveFloat = Field(
        0.22, description="Distance of the shoulders as a fraction of the person's height."
    )
    torso: PositiveFloat = Field(0.25, description="From shoulders to hips as a fraction of the person's height.")


class Preprocessing(BaseModel):
    """From a decoded frame to the network's input. Stored in the checkpoint, so that callers never retype it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_side: PositiveInt = Field(256, description="Short side in pixels that frames are resized to.")
    crop: PositiveInt = Field(224, description="Side in pixels of the square that the network sees.")
    test_side: PositiveInt | None = Field(
        None, description="Side of the square in testing and labeling, where it differs from crop."
    )
    fit: Fit = Field(
        "crop",
        description="`crop` keeps the center square of the frame, as the reference does; `pad` keeps the whole frame and "
        "fills it up to a square; `people` keeps the square around the people's keypoints, and needs skeletons.",
    )
    sampling: SamplingRule = Field(
        "segments",
        description="Which frames of a clip the network sees: one of each of equal `segments` (MANet's rule, which in training "
        "leaves out the rest of the division), one of each of equal parts of the whole clip (`uniform`), or `consecutive` ones, "
        "which continue from the clip's beginning where it ends, or a random one of each of as many `bins`, as PCAN does even in "
        "testing.",
    )
    frame_interval: PositiveInt = Field(1, description="With sampling=consecutive: every which frame.")
    views: PositiveInt = Field(
        1, description="How many times frames are taken in testing and labeling; probabilities are averaged over them."
    )
    person: PersonScale | None = Field(
        None,
        description="How people lie in the training clips, which `train` measures; labeling crops each person alike. None: not "
        "measured, MA-52's is used.",
    )
    mean: tuple[float, float, float] = Field(IMAGENET_MEAN, description="Mean of R, G and B on 0..255.")
    std: tuple[float, float, float] = Field(IMAGENET_STD, description="Standard deviation of R, G and B on 0..255.")

    @property
    def padding_color(self) -> tuple[int, int, int]:
        """The color of padding: the mean, which normalization turns into zeros (up to rounding)."""
        red, green, blue = (round(value) for value in self.mean)
        return red, green, blue

    @property
    def side(self) -> int:
        """Side of the square that the network sees in testing and labeling."""
        return self.test_side or self.crop

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        for name in ("crop", "test_side"):
            side = getattr(self, name)
            if side is not None and side > self.short_side:
                raise ValueError(f"{name} ({side}) must be at most short_side ({self.short_side})")
        return self
