"""A file of published weights is a checkpoint at once; any other file is refused with one line."""

from pathlib import Path

import pytest
import torch

from microaction.models import CheckpointError, Inputs, ManetConfig, load_checkpoint
from microaction.models.importing import read_published
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from microaction.taxonomy import ACTIONS
from tests.models.manet.published import published_state, resnet_state, small_network
from tests.models.networks import randomize_weights


@pytest.fixture
def published(tmp_path: Path) -> str:
    path = tmp_path / "manet.pth"
    torch.save({"meta": {"epoch": 80}, "state_dict": published_state(randomize_weights(small_network()))}, path)
    return str(path)


def test_published_weights_load_as_a_checkpoint(published: str) -> None:
    network = randomize_weights(small_network())
    frames_BTHWC = torch.randint(
        0, 256, (1, 8, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    checkpoint = load_checkpoint(published)
    assert not checkpoint.model.training
    with torch.inference_mode():
        expected_BK = network(Inputs(normalize_frames(frames_BTHWC, Preprocessing()))).logits
    torch.testing.assert_close(checkpoint.logits(frames_BTHWC), expected_BK, rtol=0, atol=0)


def test_published_weights_carry_the_references_preprocessing(published: str) -> None:
    _, config = read_published(published)
    assert config.model == ManetConfig(width=16, depths=(2, 1, 1, 1), embedding_dim=24)
    assert config.preprocessing == Preprocessing(
        short_side=256, crop=224, fit="crop", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    assert config.labels == ACTIONS
    assert config.calibration is None
    assert (config.temperature, config.recipe, config.metrics) == (1.0, {}, {})


def test_published_weights_come_with_notices(published: str) -> None:
    calibration, license_ = load_checkpoint(published).notices
    assert calibration.startswith("it is not calibrated")
    assert "MA-52" in license_
    assert "non-commercial" in license_


def test_the_digest_depends_on_the_published_weights(tmp_path: Path, published: str) -> None:
    first = load_checkpoint(published)
    assert load_checkpoint(first.ref).digest == first.digest
    torch.save(published_state(randomize_weights(small_network())), tmp_path / "bare.pth")
    bare = load_checkpoint(str(tmp_path / "bare.pth"))
    assert bare.digest == first.digest, "the same weights"
    assert bare.config.origin != first.config.origin, "another file"
    torch.save(published_state(randomize_weights(small_network(), seed=1)), published)
    with pytest.raises(CheckpointError, match=r"manet\.pth has changed: its digest was"):
        load_checkpoint(first.ref)


@pytest.mark.parametrize("content", [b"weights\nof a network\n", b"not yet transferred\n" * 50, bytes(range(256)) * 4])
def test_a_renamed_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth: it cannot be read as plain weights") as raised:
        load_checkpoint(str(path))
    assert "\n" not in str(raised.value)


def test_weights_of_a_backbone_are_no_network(tmp_path: Path) -> None:
    torch.save(resnet_state(), tmp_path / "resnet50.pth")
    with pytest.raises(CheckpointError, match=r"resnet50\.pth: .*to start training with \(--init\)") as raised:
        load_checkpoint(str(tmp_path / "resnet50.pth"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1)}, "of no known layout"),
        ([1], "it holds a list, not a mapping"),
        ({"state_dict": [1]}, "the entry 'state_dict' is a list"),
        ({1: torch.zeros(1), "backbone.layer1.0.conv1.conv.fcce.0.weight": torch.zeros(1)}, "keys are not all strings"),
        ({"backbone.layer1.0.conv1.conv.fcce.0.weight": torch.zeros(1)}, "not a whole MANet checkpoint"),
    ],
)
def test_other_tensors_are_refused_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: .*{message}") as raised:
        load_checkpoint(str(tmp_path / "other.pth"))
    assert "\n" not in str(raised.value)
