"""The table of families: presets by name, and configurations as a union tagged by `family`."""

import subprocess
import sys
from dataclasses import replace
from typing import Literal

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from microaction.models import (
    FAMILIES,
    PRESETS,
    CheckpointError,
    MANet,
    ManetConfig,
    ModelConfig,
    create_model,
    load_published,
    register_family,
)
from microaction.models.manet.network import Bottleneck
from microaction.models.settings import AnyModelConfig
from tests.models.networks import SMALL

SMALL_FIELDS = {"width": 8, "depths": (1, 1, 1, 1)}


class AnotherConfig(ModelConfig):
    """The configuration of a family that another package defines."""

    family: Literal["another"] = "another"
    num_layers: int = 2


class Settings(BaseModel):
    """Settings that hold a network's configuration, as those of commands and checkpoints do."""

    model: AnyModelConfig


def build_another(config: AnotherConfig) -> MANet:
    return MANet(config.num_classes, config.num_frames, width=8, depths=(config.num_layers, 1, 1, 1))


ANOTHER = replace(FAMILIES["manet"], name="another", config=AnotherConfig, build=build_another, importers=())


@pytest.mark.parametrize(
    ("name", "has_se", "has_shift", "has_embedding"),
    [("manet", True, True, True), ("tsm", False, True, False), ("tsn", False, False, False)],
)
def test_presets_create_the_papers_networks(name: str, has_se: bool, has_shift: bool, has_embedding: bool) -> None:
    network = create_model(name, num_classes=7, num_frames=4, **SMALL_FIELDS)
    assert isinstance(network, MANet)
    block = network.backbone.layer1[0]
    assert isinstance(block, Bottleneck)
    assert (block.se is not None, block.shift, network.embedding is not None) == (has_se, has_shift, has_embedding)
    assert (network.action.out_features, network.num_frames) == (7, 4)


def test_a_preset_without_overrides_has_the_familys_defaults() -> None:
    assert PRESETS.keys() >= {"manet", "tsm", "tsn"}
    network = create_model("manet")
    assert sum(parameter.numel() for parameter in network.parameters()) == 32_284_252


def test_unknown_networks_and_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no network 'resnet': choose one of .*manet, .*tsm, tsn"):
        create_model("resnet")
    with pytest.raises(ValueError, match=r"num_layers\n  Extra inputs are not permitted"):
        create_model("manet", num_layers=3)


def test_an_unknown_family_is_one_clear_error() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"model": {"family": "resnet", "num_classes": 52}})
    (problem,) = raised.value.errors()
    assert problem["loc"] == ("model",)
    assert problem["msg"].startswith("Value error, family 'resnet' must be one of manet, c3d, i3d, slowfast")


def test_a_value_that_does_not_fit_is_named_with_its_path() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"model": {"family": "manet", "num_frames": -1}})
    (problem,) = raised.value.errors()
    assert (problem["loc"], problem["type"]) == (("model", "num_frames"), "greater_than")


@pytest.mark.parametrize("config", [SMALL, AnotherConfig(num_layers=3)])
def test_a_configuration_survives_json_in_its_own_class(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "another", ANOTHER)
    adapter: TypeAdapter[ModelConfig] = TypeAdapter(AnyModelConfig)
    read = adapter.validate_json(adapter.dump_json(config))
    assert type(read) is type(config)
    assert read == config
    assert Settings.model_validate_json(Settings(model=config).model_dump_json()).model == config


def test_manet_is_the_default_family() -> None:
    assert Settings.model_validate({"model": {"width": 8}}).model == ManetConfig(width=8)


def test_a_registered_family_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "another", FAMILIES["manet"])  # so that the table is restored afterwards
    register_family(ANOTHER)
    network = create_model("another", num_layers=5)
    assert isinstance(network, MANet)
    assert len(network.backbone.layer1) == 5


def test_keys_of_no_known_layout_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no known layout .*MANet.*ResNet-50.*; the first keys are: a, b, c$"):
        load_published(MANet(width=8, depths=(1, 1, 1, 1)), dict.fromkeys("abcd"))


def test_settings_need_no_torch() -> None:
    """A command's `--help` imports the configurations of networks, and must not wait for torch."""
    modules = ("microaction.models", "microaction.models.families", "microaction.training.settings")
    script = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
