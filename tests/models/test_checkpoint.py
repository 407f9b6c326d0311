import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from microaction import installation
from microaction.models import (
    Calibration,
    CheckpointConfig,
    CheckpointError,
    Inputs,
    MANet,
    ModelRef,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from microaction.models.checkpoint import packaged_folder
from microaction.models.golden import GOLDEN_FILE, make_golden
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS
from tests.models.networks import SMALL, randomize_weights


def config(**changes: object) -> CheckpointConfig:
    fields = {
        "model": SMALL,
        "preprocessing": Preprocessing(short_side=64, crop=48),
        "labels": ACTIONS,
        "calibration": Calibration(temperature=1.5),
        "recipe": {"epochs": 3},
        "versions": {"torch": "x"},
        "metrics": {"action_top1": 0.5},
    }
    return CheckpointConfig.model_validate(fields | changes)


def random_frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 8, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_loaded_checkpoint_computes_what_was_saved(tmp_path: Path) -> None:
    model = randomize_weights(build_model(SMALL))
    save_checkpoint(model, config(), str(tmp_path / "m"))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_checkpoint(str(tmp_path / "m"))
    assert loaded.config == config()
    assert not loaded.model.training
    inputs = Inputs(torch.randn(1, 8, 3, 48, 48))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(inputs), model(inputs), rtol=0, atol=0)


def test_logits_are_normalized_and_divided_by_the_temperature(tmp_path: Path) -> None:
    model = randomize_weights(build_model(SMALL))
    save_checkpoint(model, config(), str(tmp_path))
    loaded, frames_BTHWC = load_checkpoint(str(tmp_path)), random_frames()
    with torch.inference_mode():
        expected_BK = model(Inputs(normalize_frames(frames_BTHWC, Preprocessing()))).logits / 1.5
    torch.testing.assert_close(loaded.logits(frames_BTHWC), expected_BK, rtol=0, atol=0)
    torch.testing.assert_close(loaded.classify(frames_BTHWC), expected_BK.softmax(dim=1), rtol=0, atol=0)


def test_an_uncalibrated_checkpoint_says_so(tmp_path: Path) -> None:
    model = randomize_weights(build_model(SMALL))
    save_checkpoint(model, config(), str(tmp_path / "calibrated"))
    save_checkpoint(model, config(calibration=None, license="for science"), str(tmp_path / "not"))
    calibrated, uncalibrated = (load_checkpoint(str(tmp_path / name)) for name in ("calibrated", "not"))
    assert calibrated.notices == []
    assert [notice.partition(",")[0] for notice in uncalibrated.notices] == ["it is not calibrated", "for science"]
    frames_BTHWC = random_frames()
    torch.testing.assert_close(uncalibrated.logits(frames_BTHWC), calibrated.logits(frames_BTHWC) * 1.5)


def test_the_digest_depends_on_all_that_changes_predictions(tmp_path: Path) -> None:
    model = build_model(SMALL)
    assert isinstance(model, MANet)

    def digest(name: str, saved: CheckpointConfig) -> str:
        save_checkpoint(model, saved, str(tmp_path / name))
        return load_checkpoint(str(tmp_path / name)).digest

    first = digest("a", config())
    assert digest("b", config(metrics={}, recipe={}, versions={}, origin="x", license="y")) == first
    assert digest("c", config(preprocessing=Preprocessing(short_side=64, crop=56))) != first
    assert digest("d", config(calibration=None)) != first
    with torch.no_grad():
        model.action.bias[0] += 1
    assert digest("e", config()) != first


def test_a_missing_checkpoint_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"not a checkpoint directory.*must hold config.json and model.safetensors"
    ):
        load_checkpoint(str(tmp_path))


def test_damaged_weights_and_configurations_are_refused(tmp_path: Path) -> None:
    save_checkpoint(build_model(SMALL), config(), str(tmp_path))
    complete = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(complete[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit its config"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(complete)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["model"]["width"] = 16
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_checkpoint(str(tmp_path))
    for content in (b"{}", b"", b"\x80", b"[]", b'{"model": {"family": []}}', b'{"model": {"width": 20}}'):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"config\.json is not a checkpoint's config") as raised:
            load_checkpoint(str(tmp_path))
        assert "\n" not in str(raised.value)


def test_a_checkpoint_of_the_earlier_format_is_refused(tmp_path: Path) -> None:
    """Format 1 had no families, another name for the number of frames, and the temperature among the fields."""
    model = {"num_classes": 52, "num_segments": 8, "embedding_dim": 12, "width": 8, "depths": [1, 1, 1, 1]}
    fields = config().model_dump(mode="json", exclude={"calibration", "origin", "license"})
    fields |= {"format": 1, "temperature": 1.5, "model": model}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(
        CheckpointError, match=r"earlier version of microaction \(format 1, .* train it again"
    ) as raised:
        load_checkpoint(str(tmp_path))
    assert str(raised.value).startswith(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    fields = config().model_dump(mode="json")
    fields["model"]["family"] = "resnet"
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"config\.json .*family 'resnet' must be one of") as raised:
        load_checkpoint(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_labels_and_classes_must_agree(tmp_path: Path) -> None:
    save_checkpoint(build_model(SMALL), config(labels=("nodding", "waving")), str(tmp_path))
    with pytest.raises(CheckpointError, match="names 2 labels for a network of 52 classes"):
        load_checkpoint(str(tmp_path))


def test_a_reference_is_refused_when_the_checkpoint_changed(tmp_path: Path) -> None:
    uri = str(tmp_path)
    model = randomize_weights(build_model(SMALL))
    save_checkpoint(model, config(), uri)
    ref = load_checkpoint(uri).ref
    assert load_checkpoint(ref).ref == ref
    save_checkpoint(model, config(calibration=None), uri)
    with pytest.raises(CheckpointError, match=rf"{uri} has changed: its digest was {ref.digest} and is .* now"):
        load_checkpoint(ref)
    assert load_checkpoint(ModelRef(uri)).digest != ref.digest


def test_a_reference_holds_the_golden_file_too(tmp_path: Path) -> None:
    uri, golden = str(tmp_path), tmp_path / GOLDEN_FILE
    save_checkpoint(randomize_weights(build_model(SMALL)), config(), uri)
    assert load_checkpoint(uri).ref.golden_sha256 is None
    golden.write_bytes(make_golden(load_checkpoint(uri)))
    ref = load_checkpoint(uri).ref
    assert ref.golden_sha256 is not None
    assert load_checkpoint(ref).ref == ref
    golden.write_bytes(golden.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"is not what was registered: the SHA-256 of golden\.safetensors"):
        load_checkpoint(ref)
    golden.unlink()
    with pytest.raises(CheckpointError, match=r"is not what was registered: golden\.safetensors is missing"):
        load_checkpoint(ref)


def test_loading_imports_neither_boto3_nor_ray_nor_av(tmp_path: Path) -> None:
    save_checkpoint(randomize_weights(build_model(SMALL)), config(), str(tmp_path))
    script = (
        "import sys; from microaction.models import load_checkpoint; load_checkpoint(sys.argv[1]); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'av', 'boto3', 'botocore', 'ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_normalization_is_the_formula() -> None:
    frames = torch.randint(0, 256, (1, 2, 4, 5, 3), dtype=torch.uint8)
    out = normalize_frames(frames, Preprocessing())
    assert out.shape == (1, 2, 3, 4, 5)
    expected = (frames[0, 1, 3, 4, 2].item() - 103.53) / 57.375
    assert out[0, 1, 2, 3, 4].item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"must be uint8 \[B, T, H, W, 3\]"):
        normalize_frames(frames.float(), Preprocessing())


def test_submitted_code_takes_the_installed_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = installation.PACKAGE
    submitted, installed = tmp_path / "submitted" / "microaction", tmp_path / "site-packages" / "microaction"
    shutil.copytree(package / "models" / "demo", installed / "models" / "demo")
    (submitted / "models" / "demo").mkdir(parents=True)
    shutil.copy(package / "models" / "demo" / "config.json", submitted / "models" / "demo")  # without the weights
    monkeypatch.setattr(installation, "PACKAGE", submitted)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    assert packaged_folder("demo") == str(installed / "models" / "demo")
    assert sum(weights.numel() for weights in load_checkpoint("demo").model.state_dict().values()) > 1_000_000
