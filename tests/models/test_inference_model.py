"""The form for inference computes what the network computes."""

import pytest
import torch

from microaction.models import Inputs, MANet
from microaction.models.inference import InferenceModel, compiled
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import Preprocessing
from tests.models.networks import DEVICES

STATISTICS = Preprocessing()


def trained_network(**changes: object) -> MANet:
    """Return a small network whose batch norms have statistics as after training, so that wrong folding shows."""
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


def random_frames(device: str, num_clips: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_clips, 8, 64, 64, 3), dtype=torch.uint8, generator=generator).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"se": False, "embedding_dim": None}, {"se": False, "shift": False}])
def test_float32_inference_equals_the_network(device: str, changes: dict[str, object]) -> None:
    model, frames_BTHWC = trained_network(**changes).to(device), random_frames(device)
    with torch.inference_mode():
        expected_BK = model(Inputs(normalize_frames(frames_BTHWC, STATISTICS))).logits
        found_BK = InferenceModel(model, STATISTICS, torch.float32)(frames_BTHWC)
    assert expected_BK.std() > 0.1, "logits differ"
    torch.testing.assert_close(found_BK, expected_BK, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_inference_differs_by_rounding_only(device: str) -> None:
    model, frames_BTHWC = trained_network().to(device), random_frames(device, 8)
    with torch.inference_mode():
        expected_BK = model(Inputs(normalize_frames(frames_BTHWC, STATISTICS))).logits
        found_BK = InferenceModel(model, STATISTICS)(frames_BTHWC)
    assert found_BK.dtype == torch.float32
    assert (found_BK - expected_BK).abs().max() < 0.05 * expected_BK.abs().max()
    assert not torch.equal(found_BK, expected_BK)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_inference_equals_the_uncompiled_one(device: str) -> None:
    network, frames_BTHWC = trained_network().to(device), random_frames(device)
    model = InferenceModel(network, STATISTICS, torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(model)(frames_BTHWC), model(frames_BTHWC), rtol=1e-4, atol=1e-4)


def test_the_network_itself_is_not_changed() -> None:
    model = trained_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = InferenceModel(model, STATISTICS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert not any(name.startswith("embedding") for name, _ in fast.named_parameters())
    assert {parameter.requires_grad for parameter in fast.parameters()} == {False}
