"""The configuration of detectors of actions in untrimmed video. Importable without torch."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from microaction.models.manet.config import ManetConfig
from microaction.models.settings import AnyModelConfig, ModelConfig, default_model_config

STEPS_PER_S = 8  # of video; at each step the detector sees one frame
STEPS_PER_CLIP = 16  # the 2 s of which classifiers see a clip's frames
CLIP_MULTIPLE = 16  # steps: the stride of the last of five levels


class DetectorConfig(ModelConfig):
    """A detector: a classifier's backbone gives features of frames, a pyramid over them points and dense probabilities."""

    family: Literal["detector"] = Field("detector", description="Kind of network.")
    num_frames: PositiveInt = Field(128, description="Frames of a clip that the network sees.")
    backbone: AnyModelConfig = Field(
        default_factory=default_model_config,
        description="The network whose features of frames it sees: a preset's name, or its configuration.",
    )
    pyramid_width: PositiveInt = Field(192, description="Channels of the pyramid.")
    pyramid_levels: int = Field(
        5, ge=1, le=8, description="Levels of the pyramid: the last one's actions last more than 2^(levels − 2) s."
    )
    mixing: Literal["max-pool", "attention"] = Field(
        "max-pool", description="What halves time from level to level: a max pool, or blocks with local attention."
    )
    attention_heads: PositiveInt = Field(4, description="With mixing=attention: heads of it.")
    attention_window: int = Field(
        9, ge=3, description="With mixing=attention: positions that each sees, itself in the middle."
    )
    stem_blocks: int = Field(0, ge=0, description="Blocks with local attention before the first level.")
    boundaries: Literal["shared", "per-class"] = Field(
        "per-class", description="Whether a point has one start and end, or those of each action by itself."
    )
    score: Literal["product", "points", "dense"] = Field(
        "product",
        description="What a detection's score is: the root of the point's times the mean dense probability over it, the "
        "point's alone, or with `dense` runs of dense probabilities, without points.",
    )

    @property
    def num_rgb_frames(self) -> int:
        """Frames of the video that it sees at each step."""
        return 1

    @property
    def spacing(self) -> int:
        """Steps between frames that its backbone mixes: as far apart as in the clips of 2 s that it was trained on."""
        return max(1, round(STEPS_PER_CLIP / self.backbone.num_frames))

    def needed_steps(self, owned: range, num_steps: int) -> range:
        """Return the steps whose frames the first layer's output at `owned` steps depends on, in a video of `num_steps`."""
        features = range(max(owned.start - 1, 0), min(owned.stop + 1, num_steps))
        if isinstance(self.backbone, ManetConfig):
            reach = sum(self.backbone.depths) * self.spacing if self.backbone.shift else 0
            return range(max(features.start - reach, 0), min(features.stop + reach, num_steps))
        unit = self.backbone.num_frames * self.spacing
        return range(features.start // unit * unit, min(-(-features.stop // unit) * unit, num_steps))

    @model_validator(mode="after")
    def _fits(self) -> "DetectorConfig":
        if self.num_frames % CLIP_MULTIPLE:
            raise ValueError(
                f"num_frames ({self.num_frames}) must be a multiple of {CLIP_MULTIPLE}: {STEPS_PER_S} are 1 s"
            )
        if self.backbone.num_pose_frames or self.backbone.family == "detector":
            raise ValueError(f"backbone ({self.backbone.family}) must be a network that classifies frames alone")
        if self.pyramid_width % self.attention_heads:
            raise ValueError(
                f"pyramid_width ({self.pyramid_width}) must be a multiple of attention_heads ({self.attention_heads})"
            )
        return self
