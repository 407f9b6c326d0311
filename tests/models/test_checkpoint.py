import json
from pathlib import Path

import pytest
import torch

from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.models import CheckpointConfig, CheckpointError, build_model, load_checkpoint, save_checkpoint
from microaction.models.normalize import normalize_frames
from microaction.taxonomy import ACTIONS
from tests.models.manet.test_network import with_lively_weights

SMALL = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=12)


def config(**changes: object) -> CheckpointConfig:
    fields = {
        "model": SMALL,
        "preprocessing": Preprocessing(short_side=64, crop=48),
        "labels": ACTIONS,
        "recipe": {"epochs": 3},
        "versions": {"torch": "x"},
        "metrics": {"action_top1": 0.5},
    }
    return CheckpointConfig.model_validate(fields | changes)


def test_a_loaded_checkpoint_answers_as_the_saved_model(tmp_path: Path) -> None:
    model = with_lively_weights(build_model(SMALL))
    save_checkpoint(model, config(), str(tmp_path / "m"))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_checkpoint(str(tmp_path / "m"))
    assert loaded.config == config()
    assert not loaded.model.training
    frames = torch.randn(1, 8, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(frames), model(frames), rtol=0, atol=0)


def test_the_digest_follows_what_changes_predictions_and_nothing_else(tmp_path: Path) -> None:
    model = build_model(SMALL)

    def digest(name: str, saved: CheckpointConfig) -> str:
        save_checkpoint(model, saved, str(tmp_path / name))
        return load_checkpoint(str(tmp_path / name)).digest

    first = digest("a", config())
    assert digest("b", config(metrics={}, recipe={}, versions={})) == first
    assert digest("c", config(preprocessing=Preprocessing(short_side=64, crop=56))) != first
    with torch.no_grad():
        model.action.bias[0] += 1
    assert digest("d", config()) != first


def test_a_missing_checkpoint_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"not a checkpoint directory.*must hold config.json and model.safetensors"
    ):
        load_checkpoint(str(tmp_path))


def test_damaged_weights_and_configs_are_refused_by_name(tmp_path: Path) -> None:
    save_checkpoint(build_model(SMALL), config(), str(tmp_path))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit its config"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(whole)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["model"]["width"] = 16
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is not a checkpoint's config"):
        load_checkpoint(str(tmp_path))


def test_normalising_is_the_formula() -> None:
    frames = torch.randint(0, 256, (1, 2, 4, 5, 3), dtype=torch.uint8)
    out = normalize_frames(frames, Preprocessing())
    assert out.shape == (1, 2, 3, 4, 5)
    expected = (frames[0, 1, 3, 4, 2].item() - 103.53) / 57.375
    assert out[0, 1, 2, 3, 4].item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"must be uint8 \[B, T, H, W, 3\]"):
        normalize_frames(frames.float(), Preprocessing())
