"""The recipes that networks are trained with: published ones, ours, and that of a challenge's winner. Importable without torch.

Sources: Guo et al. 2024 and the authors' configurations (MANet, TSM, I3D); the challenge kit of MA-52 (Video Swin); mmaction2's
configurations for Kinetics (TSN, TIN, C3D, SlowFast, TimeSformer); the code of the 2024 challenge's winner (vision transformers).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from microaction.models.c3d.family import C3DConfig
from microaction.models.conventions import published_sampling
from microaction.models.detector.config import DetectorConfig
from microaction.models.manet.config import ManetConfig
from microaction.models.pcan.family import PCANConfig, PCANPoseConfig, PCANRGBConfig
from microaction.models.resnet3d.family import I3DConfig, SlowFastConfig
from microaction.models.settings import ModelConfig
from microaction.models.timesformer.family import TimeSformerConfig
from microaction.models.tin.family import TINConfig
from microaction.models.uniformer.family import UniFormerConfig
from microaction.models.video_swin.family import VideoSwinConfig
from microaction.models.video_vit.family import VideoViTConfig

RecipeName = Literal["default", "published", "winner"]

RESIZED_CROP = {"crop": "resized"}
PEOPLE_CROP = {"crop": "resized", "crop_area": (0.56, 1.0)}


@dataclass(frozen=True)
class Recipe:
    """Settings that differ from the defaults of `RecipeConfig` and `Preprocessing`, and where they come from."""

    origin: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(config: ModelConfig, name: RecipeName) -> Recipe:
    """Return a network's recipe. Raises `ValueError` for a name that the network has no recipe of."""
    if name == "winner":
        if not isinstance(config, VideoViTConfig):
            raise ValueError(
                f"the winner's recipe is one of vision transformers (vit-s, vit-b, vit-l), not of {config.family}"
            )
        return _WINNER
    if name == "default":
        return _default_of(config)
    if name == "published":
        return _published_of(config)
    return Recipe("")  # the settings' own validation reports the name


def _default_of(config: ModelConfig) -> Recipe:
    if isinstance(config, DetectorConfig):
        ours = {
            "learning_rate": 2e-3,
            "base_batch_size": 32,
            "batch_size": 32,
            "freeze_backbone": True,
            "ema_decay": 0.99,
        }
        return Recipe("ours: ActionFormer's, on features of a backbone that keeps its weights", _OF_DETECTORS | ours)
    if isinstance(config, ManetConfig):
        return Recipe("MANet's, of its authors' MA-52 configuration")
    sampling = {"sampling": "uniform"}
    if isinstance(config, (VideoSwinConfig, TimeSformerConfig, UniFormerConfig, VideoViTConfig)):
        adamw = {
            "optimizer": "adamw",
            "learning_rate": 2.5e-4,
            "base_batch_size": 64,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_epochs": 5.0,
            "epochs": 40,
            "clip_gradient_norm": 40.0,
            **RESIZED_CROP,
        }
        return Recipe("ours: AdamW for transformers, frames from the whole clip", adamw, sampling)
    if isinstance(config, (PCANConfig, PCANPoseConfig)):
        # Validated by one view after each epoch, as in the reference, and by more where `preprocessing.views` asks for them.
        published = _published_of(config)
        return Recipe(published.origin, published.recipe, dict(published.preprocessing) | {"views": 1})
    return Recipe("ours: MANet's optimizer, frames from the whole clip", {}, sampling)


def _published_of(config: ModelConfig) -> Recipe:  # noqa: PLR0911 - a table
    steps = {"schedule": "step"}
    cosine = {"schedule": "cosine"}
    sampling = published_sampling(config)
    of_mmaction = "mmaction2's for Kinetics; none is published for MA-52"
    match config:
        case DetectorConfig():
            return Recipe("ActionFormer's for THUMOS14, of its authors", _OF_DETECTORS | {"ema_decay": 0.999})
        case ManetConfig(se=True):
            return Recipe("MANet's, of its authors' MA-52 configuration")
        case ManetConfig(shift=True):
            tsm = {"epochs": 50, "milestones": (0.4, 0.8), "base_batch_size": 8, "clip_gradient_norm": 20.0}
            return Recipe("TSM's, of the MANet authors' MA-52 configuration", steps | tsm)
        case ManetConfig():
            tsn = {"epochs": 100, "milestones": (0.4, 0.8), "learning_rate": 0.01, "base_batch_size": 256}
            return Recipe(f"TSN's: {of_mmaction}", steps | tsn | {"clip_gradient_norm": 40.0})
        case I3DConfig():
            i3d = {"epochs": 100, "milestones": (0.4, 0.8), "learning_rate": 0.01, "base_batch_size": 8}
            return Recipe(
                "I3D's, of the MANet authors' MA-52 configuration",
                steps | i3d | {"clip_gradient_norm": 40.0, "crop_scales": (1.0, 0.8)},
                sampling,
            )
        case VideoSwinConfig():
            swin = {"optimizer": "adamw", "learning_rate": 1e-3, "base_batch_size": 8, "backbone_lr_factor": 0.1}
            decay = 0.02 if config.width < 128 else 0.05
            return Recipe(
                "Video Swin's, of the MA-52 challenge kit",
                cosine | swin | RESIZED_CROP | {"weight_decay": decay, "warmup_epochs": 2.5, "epochs": 40},
                sampling,
            )
        case TINConfig():
            tin = {"learning_rate": 0.01, "base_batch_size": 48, "weight_decay": 5e-4, "clip_gradient_norm": 40.0}
            return Recipe(f"TIN's: {of_mmaction}", cosine | tin | {"warmup_epochs": 1.0, "epochs": 40})
        case C3DConfig():
            c3d = {"learning_rate": 0.001, "base_batch_size": 240, "weight_decay": 5e-4, "clip_gradient_norm": 40.0}
            return Recipe(
                f"C3D's: {of_mmaction}",
                steps | c3d | {"epochs": 45, "milestones": (20 / 45, 40 / 45)},
                sampling,
            )
        case SlowFastConfig():
            slowfast = {"learning_rate": 0.1, "base_batch_size": 64, "clip_gradient_norm": 40.0, "warmup_epochs": 34.0}
            return Recipe(
                f"SlowFast's: {of_mmaction}",
                cosine | slowfast | RESIZED_CROP | {"epochs": 256},
                sampling,
            )
        case TimeSformerConfig():
            timesformer = {"learning_rate": 0.005, "base_batch_size": 64, "nesterov": True, "clip_gradient_norm": 40.0}
            return Recipe(
                f"TimeSformer's: {of_mmaction}", steps | timesformer | {"epochs": 15, "milestones": (1 / 3, 2 / 3)}
            )
        case PCANConfig():
            pcan = {"learning_rate": 0.0075, "epochs": 30, "milestones": (1 / 3, 2 / 3), "clip_gradient_norm": 40.0}
            return Recipe("PCAN's, of its authors for MA-52", steps | pcan | PEOPLE_CROP, sampling)
        case PCANRGBConfig():
            rgb = {"learning_rate": 0.15, "base_batch_size": 96, "epochs": 180, "clip_gradient_norm": 40.0}
            return Recipe(
                "PCAN's for NTU-60; none is published for MA-52",
                cosine | rgb | PEOPLE_CROP,
                sampling,
            )
        case PCANPoseConfig():
            pose = {"learning_rate": 0.2, "base_batch_size": 128, "epochs": 180, "clip_gradient_norm": 40.0}
            return Recipe(
                "PCAN's for NTU-60; none is published for MA-52",
                cosine | pose | PEOPLE_CROP | {"weight_decay": 3e-4},
                sampling,
            )
        case UniFormerConfig():
            uniformer = {"optimizer": "adamw", "learning_rate": 4e-4, "base_batch_size": 64, "weight_decay": 0.05}
            return Recipe(
                "UniFormer's, of its authors for Kinetics, from memory; none is published for MA-52",
                cosine | uniformer | RESIZED_CROP | {"epochs": 110, "warmup_epochs": 10.0},
                sampling,
            )
    default = _default_of(config)
    return Recipe(f"none is published for {config.family}; {default.origin}", default.recipe, default.preprocessing)


_OF_DETECTORS: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "base_batch_size": 2,
    "batch_size": 2,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_epochs": 5.0,
    "epochs": 35,
    "clip_gradient_norm": 1.0,
    "batch_norm": "frozen",
}
_WINNER = Recipe(
    "that of the MA-52 challenge's winner in 2024",
    {
        "optimizer": "adamw",
        "learning_rate": 3e-4,
        "base_batch_size": 192,
        "backbone_lr_factor": 0.1,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "warmup_epochs": 2.0,
        "epochs": 42,
        "precision": "bf16",
        "crop": "resized",
        "crop_area": (0.6, 1.0),
        "crop_aspect": (1 / 3, 1.0),
        "color_jitter": 0.4,
        "erasing": 0.2,
    },
    {"sampling": "uniform", "fit": "pad"},
)
