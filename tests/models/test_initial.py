import io
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.models import CheckpointConfig, CheckpointError, MANet, build_model, save_checkpoint
from microaction.models.initial import load_initial_weights
from microaction.taxonomy import ACTIONS
from tests.models.manet.test_network import with_lively_weights
from tests.models.manet.test_importers import published, small


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def resnet_state() -> dict[str, Tensor]:
    """A plain ResNet's weights of the small shape, named as torchvision names them."""
    plain = with_lively_weights(MANet(width=16, depths=(2, 1, 1, 1), embedding_dim=None, se=False))
    state = {name: value.clone() for name, value in plain.backbone.state_dict().items()}
    return state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def test_the_authors_checkpoint_becomes_the_whole_model(tmp_path: Path) -> None:
    source, target = with_lively_weights(small()), small()
    load_initial_weights(
        target, saved(tmp_path / "manet.pth", {"state_dict": published(source), "meta": {"epoch": 80}})
    )
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_resnet_becomes_the_backbone_and_the_rest_stays(tmp_path: Path) -> None:
    target, state = small(), resnet_state()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    load_initial_weights(target, saved(tmp_path / "resnet.pth", state))
    for name, value in target.state_dict().items():
        plain = name.removeprefix("backbone.")
        if name.startswith("backbone.") and ".se." not in name:
            assert torch.equal(value, state[plain]), name
        else:
            assert torch.equal(value, before[name]), name


def test_resnet50_is_resnet50() -> None:
    """The names and shapes of the full model's backbone are those of torchvision's ResNet-50."""
    state = MANet().backbone.state_dict()
    assert state["layer3.5.conv3.weight"].shape == (1024, 256, 1, 1)
    assert state["layer2.0.downsample.1.running_mean"].shape == (512,)
    numbers = sum(value.numel() for name, value in state.items() if ".se." not in name and value.is_floating_point())
    batch_norm_statistics = sum(value.numel() for name, value in state.items() if ".running_" in name)
    assert numbers - batch_norm_statistics == 25_557_032 - 2_049_000, "ResNet-50 without its classifier"


def test_our_own_checkpoints_serve(tmp_path: Path) -> None:
    config = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
    source = with_lively_weights(build_model(config))
    described = CheckpointConfig(
        model=config, preprocessing=Preprocessing(), labels=ACTIONS, recipe={}, versions={}, metrics={}
    )
    save_checkpoint(source, described, str(tmp_path))
    target = build_model(config)
    load_initial_weights(target, str(tmp_path))
    assert torch.equal(target.action.weight, source.action.weight)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_initial_weights(small(), str(tmp_path))


def test_what_does_not_fit_is_listed_with_its_file(tmp_path: Path) -> None:
    state = resnet_state()
    del state["bn1.bias"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError) as refusal:
        load_initial_weights(small(), saved(tmp_path / "r.pth", state))
    for part in (
        "r.pth: not a ResNet-50",
        "unknown: layer9.weight",
        "missing: bn1.bias",
        "wrong shape: conv1.weight (3, 3)",
    ):
        assert part in str(refusal.value)
    with pytest.raises(CheckpointError, match=r"neither MANet's nor ResNet-50's; the first are: a"):
        load_initial_weights(small(), saved(tmp_path / "a.pth", {"a": torch.zeros(1)}))
    with pytest.raises(
        CheckpointError, match=r"no weights at .*absent\.pth: give a checkpoint directory, a \.pth file"
    ):
        load_initial_weights(small(), str(tmp_path / "absent.pth"))
    with pytest.raises(CheckpointError, match="holds a list"):
        load_initial_weights(small(), saved(tmp_path / "l.pth", [1]))


class Spiteful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a file was run",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in {"pickle.pth": pickle.dumps({"conv1.weight": Spiteful()}), "text.pth": b"weights"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{name} cannot be read as plain weights"):
            load_initial_weights(small(), str(tmp_path / name))
    buffer = io.BytesIO()
    torch.save({"conv1.weight": Spiteful()}, buffer)
    (tmp_path / "zip.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="could run code"):
        load_initial_weights(small(), str(tmp_path / "zip.pth"))
    assert "was run" not in capsys.readouterr().out


def test_without_a_network_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(
        CheckpointError, match=r"resnet50-0676ba61\.pth cannot be downloaded .*no route.*and give its path"
    ):
        load_initial_weights(small(), "imagenet")
