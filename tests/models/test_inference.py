"""Inference that every family has, and whether a node can compile a network."""

from pathlib import Path

import pytest
import torch

from microaction.models import Inputs, MANet, PlainInferenceModel
from microaction.models.inference import can_compile
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import Preprocessing
from tests.models.networks import DEVICES, randomize_weights

STATISTICS = Preprocessing()


@pytest.mark.parametrize("device", DEVICES)
def test_plain_inference_is_a_copy_of_the_network(device: str) -> None:
    model = randomize_weights(MANet(width=8, depths=(1, 1, 1, 1), embedding_dim=None)).to(device)
    generator = torch.Generator().manual_seed(1)
    frames_BTHWC = torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8, generator=generator).to(device)
    with torch.inference_mode():
        expected_BK = model(Inputs(normalize_frames(frames_BTHWC, STATISTICS))).logits
        plain = PlainInferenceModel(model, STATISTICS, torch.float32)
        rounded_BK = PlainInferenceModel(model, STATISTICS)(frames_BTHWC)
        model.action.bias.add_(1)
        torch.testing.assert_close(plain(frames_BTHWC), expected_BK, rtol=0, atol=0)
    assert rounded_BK.dtype == torch.float32
    assert (rounded_BK - expected_BK).abs().max() < 0.05 * expected_BK.abs().max()
    assert {parameter.requires_grad for parameter in plain.parameters()} == {False}


def test_a_node_without_a_compiler_cannot_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CXX", "CC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not can_compile("cpu")
    assert not can_compile("cuda")
    for name in ("g++", "gcc"):
        (tmp_path / name).touch(mode=0o755)
    assert can_compile("cpu")
    assert can_compile("cuda")
