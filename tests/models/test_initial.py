"""Weights to start training with."""

import io
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from microaction.models import CheckpointConfig, CheckpointError, MANet, ManetConfig, build_model, save_checkpoint
from microaction.models.initial import load_initial_weights
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS
from tests.models.manet.published import published_state, resnet_state, small_network
from tests.models.networks import randomize_weights


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def test_the_authors_checkpoint_fills_the_whole_network(tmp_path: Path) -> None:
    source, target = randomize_weights(small_network()), small_network()
    content = {"state_dict": published_state(source), "meta": {"epoch": 80}}
    load_initial_weights(target, save(tmp_path / "manet.pth", content))
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_a_resnet_file_fills_the_backbone(tmp_path: Path) -> None:
    target, state = small_network(), resnet_state()
    load_initial_weights(target, save(tmp_path / "resnet.pth", state))
    assert torch.equal(target.backbone.conv1.weight, state["conv1.weight"])


def test_checkpoints_of_this_project_are_accepted(tmp_path: Path) -> None:
    config = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
    source, target = randomize_weights(build_model(config)), build_model(config)
    assert isinstance(source, MANet)
    assert isinstance(target, MANet)
    checkpoint = CheckpointConfig(
        model=config, preprocessing=Preprocessing(), labels=ACTIONS, recipe={}, versions={}, metrics={}
    )
    save_checkpoint(source, checkpoint, str(tmp_path))
    load_initial_weights(target, str(tmp_path))
    assert torch.equal(target.action.weight, source.action.weight)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_initial_weights(small_network(), str(tmp_path))


def test_weights_that_do_not_fit_are_listed_with_their_file(tmp_path: Path) -> None:
    state = resnet_state()
    del state["bn1.bias"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError) as raised:
        load_initial_weights(small_network(), save(tmp_path / "r.pth", state))
    for part in (
        "r.pth: not a ResNet-50",
        "unknown: layer9.weight",
        "missing: backbone.bn1.bias",
        "wrong shape: conv1.weight (3, 3)",
    ):
        assert part in str(raised.value)
    with pytest.raises(CheckpointError, match=r"a\.pth: its keys are of no known layout .*; the first keys are: a"):
        load_initial_weights(small_network(), save(tmp_path / "a.pth", {"a": torch.zeros(1)}))
    with pytest.raises(
        CheckpointError, match=r"^no weights at .*absent\.pth: give a checkpoint directory or a \.pth file"
    ):
        load_initial_weights(small_network(), str(tmp_path / "absent.pth"))
    with pytest.raises(CheckpointError, match="holds a list"):
        load_initial_weights(small_network(), save(tmp_path / "l.pth", [1]))


class RunsCode:
    """Prints when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a file was run",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in {
        "pickle.pth": pickle.dumps({"conv1.weight": RunsCode()}, protocol=2),
        "text.pth": b"weights",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{name}: it cannot be read as plain weights"):
            load_initial_weights(small_network(), str(tmp_path / name))
    buffer = io.BytesIO()
    torch.save({"conv1.weight": RunsCode()}, buffer)
    (tmp_path / "zip.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="could run code"):
        load_initial_weights(small_network(), str(tmp_path / "zip.pth"))
    assert "was run" not in capsys.readouterr().out


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(
        CheckpointError, match=r"resnet50-0676ba61\.pth cannot be downloaded .*no route.*and give its path"
    ):
        load_initial_weights(small_network(), "imagenet")
