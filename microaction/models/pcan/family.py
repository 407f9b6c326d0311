"""PCAN's entries in the table of families: the whole, and its two paths alone. Importable without torch."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from microaction.models.family import MA52_LICENSE, Family, Importer, StateDict, for_inference, head_options
from microaction.models.mapping import MMACTION_CLASSIFIER, Layout, Tensors, has_keys, load_layout, stage_depths
from microaction.models.param_groups import one_group
from microaction.models.resnet3d.family import convolution_rules
from microaction.models.settings import ClassifierConfig, ModelConfig
from microaction.taxonomy import ACTIONS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from microaction.models.interface import ChannelStatistics, Network
    from microaction.models.pcan.network import PCAN, PoseNetwork, RGBNetwork

CLASSIFIER_STD = 0.01
FRAMES_RATIO = 4  # pose frames for each RGB frame
Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Three = tuple[PositiveInt, PositiveInt, PositiveInt]
KEYPOINTS_HELP = "Keypoints of a skeleton."


class PCANConfig(ModelConfig):
    """PCAN; the defaults are the paper's network. It classifies MA-52's actions and body parts alone."""

    family: Literal["pcan"] = Field("pcan", description="Kind of network.")
    num_frames: PositiveInt = Field(8, description="RGB frames of a clip; it sees four times as many of the skeleton.")
    num_keypoints: PositiveInt = Field(28, description=KEYPOINTS_HELP)
    rgb_width: PositiveInt = Field(64, description="Channels of the RGB path's stem.")
    pose_width: PositiveInt = Field(32, multiple_of=2, description="Channels of the pose path's stem, an even number.")
    rgb_depths: Four = Field((3, 4, 6, 3), description="Blocks of the RGB path's four stages.")
    pose_depths: Three = Field((4, 6, 3), description="Blocks of the pose path's three stages.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout before the classifiers.")

    @property
    def num_pose_frames(self) -> int:
        """Frames of the skeleton: four for each of the video."""
        return FRAMES_RATIO * self.num_frames

    @model_validator(mode="after")
    def _classes_fit(self) -> "PCANConfig":
        if self.num_classes != len(ACTIONS):
            raise ValueError(
                f"PCAN knows the body parts of MA-52's {len(ACTIONS)} actions, not of {self.num_classes} classes"
            )
        return self


class PCANRGBConfig(ClassifierConfig):
    """PCAN's RGB path alone."""

    family: Literal["pcan-rgb"] = Field("pcan-rgb", description="Kind of network.")
    width: PositiveInt = Field(64, description="Channels of the stem.")
    depths: Four = Field((3, 4, 6, 3), description="Blocks of the four stages.")


class PCANPoseConfig(ClassifierConfig):
    """PCAN's pose path alone."""

    family: Literal["pcan-pose"] = Field("pcan-pose", description="Kind of network.")
    num_frames: PositiveInt = Field(32, description="Frames of the skeleton that the network sees.")
    num_keypoints: PositiveInt = Field(28, description=KEYPOINTS_HELP)
    width: PositiveInt = Field(32, description="Channels of the stem.")
    depths: Three = Field((4, 6, 3), description="Blocks of the three stages.")

    @property
    def num_rgb_frames(self) -> int:
        """No frames of the video."""
        return 0

    @property
    def num_pose_frames(self) -> int:
        """Frames of the skeleton."""
        return self.num_frames


def build(config: PCANConfig) -> "PCAN":
    """Return a PCAN with random weights."""
    from microaction.models.pcan.network import PCAN

    return PCAN(
        config.num_frames,
        num_classes=config.num_classes,
        num_keypoints=config.num_keypoints,
        rgb_width=config.rgb_width,
        pose_width=config.pose_width,
        rgb_depths=config.rgb_depths,
        pose_depths=config.pose_depths,
        dropout=config.dropout,
    )


def build_rgb(config: PCANRGBConfig) -> "RGBNetwork":
    """Return an RGB path with random weights."""
    from microaction.models.pcan.network import RGBNetwork

    return RGBNetwork(head_options(config, CLASSIFIER_STD), config.num_frames, width=config.width, depths=config.depths)


def build_pose(config: PCANPoseConfig) -> "PoseNetwork":
    """Return a pose path with random weights."""
    from microaction.models.pcan.network import PoseNetwork

    return PoseNetwork(
        head_options(config, CLASSIFIER_STD),
        config.num_frames,
        num_keypoints=config.num_keypoints,
        width=config.width,
        depths=config.depths,
    )


def plain_inference(model: "Network", statistics: "ChannelStatistics", dtype: "torch.dtype") -> "nn.Module":
    """Return a module of frames and keypoints; see `PlainInferenceModel`."""
    from microaction.models.inference import PlainInferenceModel

    return PlainInferenceModel(model, statistics, dtype)


def pcan_loss(model: "PCAN") -> "nn.Module":
    """Return the loss of a network."""
    from microaction.models.pcan.loss import PCANLoss

    return PCANLoss(model)


def _exchange_rules(stage: int, number: int) -> tuple[tuple[str, str], ...]:
    """Return rules for the exchange after an RGB stage, which is the `number`-th."""
    theirs, ours = rf"backbone\.featuredifference{stage}\.", rf"backbone.cross_attention.{number}."
    return (
        (rf"backbone\.rgb_path\.layer{stage}_lateral\.conv\.weight", rf"backbone.to_rgb.{number}.weight"),
        (rf"backbone\.pose_path\.layer{stage - 1}_lateral\.(.+)", rf"backbone.to_pose.{number}.\1"),
        (theirs + r"conv1\.(\w+)", ours + r"rgb_tokens.\1"),
        (theirs + r"conv2\.(\w+)", ours + r"pose_tokens.\1"),
        (theirs + r"conv4\.(\w+)", ours + r"to_rgb.\1"),
        (theirs + r"conv5\.(\w+)", ours + r"to_pose.\1"),
        (theirs + r"rgb_cross_attn\.(\w+\.\w+)", ours + r"rgb_attn.\1"),
        (theirs + r"skt_cross_attn\.(\w+\.\w+)", ours + r"pose_attn.\1"),
    )


AUTHORS = Layout(
    "a PCAN as its authors save it",
    (
        *convolution_rules(r"backbone\.(?:rgb|pose)_path\."),
        *_exchange_rules(2, 0),
        *_exchange_rules(3, 1),
        (r"cls_head\.fc_(rgb|pose)\.(\w+)", r"\1.action.\2"),
        (r"cls_head\.fc_(rgb|pose)_coarse\.(\w+)", r"\1.body.\2"),
        (r"cls_head\.fr_(rgb|pose)\.spatio_cl_net\.cl_fc\.(\w+)", r"\1.action_projection.\2"),
        (r"cls_head\.fr_coarse_(rgb|pose)\.spatio_cl_net\.cl_fc\.(\w+)", r"\1.body_projection.\2"),
        (r"cls_head\.fr_(rgb|pose)\.spatio_cl_net\.avg_f", r"\1.action_prototypes"),
        (r"cls_head\.fr_coarse_(rgb|pose)\.spatio_cl_net\.avg_f", r"\1.body_prototypes"),
    ),
    # The reference starts with new random ones when training continues; inference does not need them.
    may_lack=(r"(rgb|pose)\.body_prototypes",),
)

_PATH = (*convolution_rules(r"backbone\."), MMACTION_CLASSIFIER)
AUTHORS_RGB = Layout("PCAN's RGB path as its authors save it", _PATH)
AUTHORS_POSE = Layout("PCAN's pose path as its authors save it", _PATH)


def merged(rgb: StateDict, pose: StateDict) -> Tensors:
    """Return weights of both paths, trained alone, under PCAN's names; the rest of PCAN has none.

    `rgb` and `pose` are state dicts of `RGBNetwork` and `PoseNetwork`. Where a stage of PCAN sees exchanged channels too, their
    weights begin with zero. Load them with `load_state_dict(…, strict=False)`.
    """
    weights: Tensors = {}
    for path, state in (("rgb", rgb), ("pose", pose)):
        weights |= {
            name.replace("backbone.", f"backbone.{path}_path."): tensor
            for name, tensor in state.items()
            if name.startswith("backbone.")
        }
        weights |= {f"{path}.{name}": tensor for name, tensor in state.items() if name.startswith("action.")}
    exchanged = [len(pose[f"backbone.layer{stage}.0.conv3.weight"]) for stage in (1, 2)]
    lateral = [len(pose[f"backbone.layer{stage}.0.conv1.weight"]) for stage in (1, 2)]
    added = {"rgb_path.layer3": exchanged[0], "rgb_path.layer4": exchanged[1]}
    added |= {"pose_path.layer2": lateral[0], "pose_path.layer3": lateral[1]}
    for stage, channels in added.items():
        for convolution in ("conv1", "downsample.0"):
            name = f"backbone.{stage}.0.{convolution}.weight"
            weights[name] = _with_zeros(weights[name], channels)
    return weights


def _with_zeros(weight: Any, channels: int) -> Any:
    import torch

    zeros = weight.new_zeros((weight.shape[0], channels, *weight.shape[2:]))
    return torch.cat([weight, zeros], dim=1)


def is_authors(state_dict: StateDict) -> bool:
    """Return whether the weights are PCAN's."""
    return has_keys(state_dict, r"backbone\.featuredifference2\.conv1\.weight")


def _stem_channels(state_dict: StateDict) -> int:
    """Return the input channels of the stem of a path alone; 0 for other weights."""
    stem = state_dict.get("backbone.conv1.conv.weight")
    return int(stem.shape[1]) if stem is not None and stem.ndim == 5 and stem.shape[2] == 1 else 0


def is_rgb(state_dict: StateDict) -> bool:
    """Return whether the weights are those of the RGB path alone."""
    return _stem_channels(state_dict) == 3


def is_pose(state_dict: StateDict) -> bool:
    """Return whether the weights are those of the pose path alone."""
    return _stem_channels(state_dict) > 3


def authors_config(state_dict: StateDict) -> PCANConfig:
    """Return the configuration of the network that the weights belong to."""
    rgb_depths: Any = stage_depths(state_dict, r"backbone\.rgb_path\.layer{}\.(\d+)\.", 4)
    pose_depths: Any = stage_depths(state_dict, r"backbone\.pose_path\.layer{}\.(\d+)\.", 3)
    pose_stem = state_dict["backbone.pose_path.conv1.conv.weight"]
    return PCANConfig(
        num_classes=len(state_dict["cls_head.fc_rgb.bias"]),
        num_keypoints=pose_stem.shape[1],
        rgb_width=len(state_dict["backbone.rgb_path.conv1.conv.weight"]),
        pose_width=len(pose_stem),
        rgb_depths=rgb_depths,
        pose_depths=pose_depths,
    )


PCAN_FAMILY = Family(
    name="pcan",
    config=PCANConfig,
    build=build,
    for_inference=plain_inference,
    param_groups=one_group,
    importers=(
        Importer(
            AUTHORS.name, is_authors, partial(load_layout, AUTHORS), config_of=authors_config, license=MA52_LICENSE
        ),
    ),
    batch_loss=pcan_loss,
)

PCAN_RGB_FAMILY = Family(
    name="pcan-rgb",
    config=PCANRGBConfig,
    build=build_rgb,
    for_inference=for_inference,
    param_groups=one_group,
    importers=(Importer(AUTHORS_RGB.name, is_rgb, partial(load_layout, AUTHORS_RGB)),),
)

PCAN_POSE_FAMILY = Family(
    name="pcan-pose",
    config=PCANPoseConfig,
    build=build_pose,
    for_inference=plain_inference,
    param_groups=one_group,
    importers=(Importer(AUTHORS_POSE.name, is_pose, partial(load_layout, AUTHORS_POSE)),),
)
