"""The fast form says what the model says."""

from pathlib import Path

import pytest
import torch

from microaction.preprocessing import Preprocessing
from microaction.models.manet.inference import InferenceModel, can_compile, compiled
from microaction.models.manet.network import MANet
from microaction.models.normalize import normalize_frames

STATISTICS = Preprocessing()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def trained(**changes: object) -> MANet:
    """A small model whose batch norms have seen something, so that folding them must tell."""
    torch.manual_seed(0)
    model = MANet(width=8, depths=(1, 2, 1, 1), **changes)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.3)
    torch.nn.init.normal_(model.action.weight, std=0.1)
    return model.eval()


def frames(device: str, num_clips: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_clips, 8, 64, 64, 3), dtype=torch.uint8, generator=generator).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"se": False, "embedding_dim": None}, {"se": False, "shift": False}])
def test_in_float32_it_is_the_same_function(device: str, changes: dict[str, object]) -> None:
    model, frames_BTHWC = trained(**changes).to(device), frames(device)
    with torch.inference_mode():
        expected, _ = model(normalize_frames(frames_BTHWC, STATISTICS))
        given = InferenceModel(model, STATISTICS, torch.float32)(frames_BTHWC)
    assert expected.std() > 0.1, "not all the same"
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_in_bfloat16_it_is_the_same_but_for_rounding(device: str) -> None:
    model, frames_BTHWC = trained().to(device), frames(device, 8)
    with torch.inference_mode():
        expected, _ = model(normalize_frames(frames_BTHWC, STATISTICS))
        given = InferenceModel(model, STATISTICS)(frames_BTHWC)
    assert given.dtype == torch.float32
    assert (given - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(given, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_it_is_what_it_was(device: str) -> None:
    model, frames_BTHWC = InferenceModel(trained().to(device), STATISTICS, torch.float32), frames(device)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(model)(frames_BTHWC), model(frames_BTHWC), rtol=1e-4, atol=1e-4)


def test_the_model_itself_stays_as_it_is() -> None:
    model = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = InferenceModel(model, STATISTICS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert not any(name.startswith("embedding") for name, _ in fast.named_parameters())
    assert {parameter.requires_grad for parameter in fast.parameters()} == {False}


def test_without_a_compiler_nothing_can_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CXX", "CC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not can_compile("cpu")
    assert not can_compile("cuda")
    for name in ("g++", "gcc"):
        (tmp_path / name).touch(mode=0o755)
    assert can_compile("cpu")
    assert can_compile("cuda")
