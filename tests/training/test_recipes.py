"""Recipes by name: what a network's training begins from, and what flags change."""

import pytest
from pydantic import ValidationError

from microaction.models import PRESETS
from microaction.models.settings import parse_model_config
from microaction.training.recipes import recipe_of
from microaction.training.settings import RecipeConfig, TrainSettings


def settings(**changes: object) -> TrainSettings:
    fields = {"train_list": "/l", "train_videos": "/v", "split_by": "subject", "storage_path": "/s", "name": "n"}
    return TrainSettings.model_validate(fields | changes)


def test_the_default_is_manets() -> None:
    assert settings().recipe == RecipeConfig()
    assert settings().preprocessing.sampling == "segments"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", ["default", "published"])
def test_every_network_has_recipes_that_say_where_they_are_from(preset: str, recipe: str) -> None:
    sees_skeletons = preset in ("pcan", "pcan-pose") or (preset, recipe) == ("pcan-rgb", "published")
    found = settings(model=preset, recipe=recipe, **({"train_skeletons": "/t"} if sees_skeletons else {}))
    assert found.recipe.name == recipe
    assert found.preprocessing.crop == getattr(found.model, "side", found.preprocessing.crop)
    origin = recipe_of(parse_model_config(preset), found.recipe.name).origin
    assert origin
    if preset in ("manet", "tsm", "i3d-r50", "video-swin-t", "video-swin-s", "video-swin-b", "pcan"):
        assert recipe == "default" or "MA-52" in origin
    elif recipe == "published":
        assert "none is published" in origin


def test_settings_change_a_recipe() -> None:
    found = settings(model={"preset": "video-swin-b", "num_frames": 8}, recipe={"name": "published", "epochs": 3})
    assert (found.recipe.epochs, found.recipe.optimizer, found.recipe.weight_decay) == (3, "adamw", 0.05)
    assert found.recipe.backbone_lr_factor == 0.1
    assert found.model.num_frames == 8
    assert found.preprocessing.model_dump(include={"sampling", "frame_interval", "views"}) == {
        "sampling": "consecutive",
        "frame_interval": 2,
        "views": 4,
    }
    assert settings(model="video-swin-t", recipe="published").recipe.weight_decay == 0.02
    smaller = settings(model="pcan", preprocessing={"short_side": 128, "crop": 112}, train_skeletons="/t").preprocessing
    assert (smaller.fit, smaller.sampling, smaller.side) == ("people", "bins", 112), (
        "the usual side in testing is another size's"
    )
    other = settings(model="c3d", recipe="published", preprocessing={"views": 1})
    assert (other.preprocessing.views, other.preprocessing.std) == (1, (1.0, 1.0, 1.0))


def test_settings_survive_being_written_and_read() -> None:
    found = settings(model="vit-s", recipe={"name": "winner", "epochs": 2})
    assert TrainSettings.model_validate_json(found.model_dump_json()) == found
    assert found.recipe.model_dump(include={"crop", "crop_area", "erasing", "precision"}) == {
        "crop": "resized",
        "crop_area": (0.6, 1.0),
        "erasing": 0.2,
        "precision": "bf16",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "manet", "recipe": "winner"}, "the winner's recipe is one of vision transformers"),
        ({"model": "resnet"}, "no network 'resnet': choose one of manet"),
        ({"model": "c3d", "preprocessing": {"crop": 64}}, r"preprocessing.crop \(64\) must be model.side \(112\)"),
        ({"model": {"family": "pcan"}}, "the network sees the skeletons of people: give train_skeletons"),
        ({"recipe": "best"}, "Input should be 'default', 'published' or 'winner'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)
