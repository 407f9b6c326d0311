"""Features of every frame: those of the plain network, however a video is cut."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from microaction.models.detector import FeatureExtractor
from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.frame_features import frame_features
from microaction.models.manet.network import Bottleneck
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import Preprocessing
from tests.models.detectors import SIDE, small_detector

T = 45
PIXELS = Preprocessing(short_side=SIDE, crop=SIDE)


def frames_of(num_frames: int = T) -> Tensor:
    return torch.randint(0, 256, (num_frames, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


def reader(frames: Tensor) -> Callable[[range], Tensor]:
    return lambda part: frames[part.start : part.stop]


@torch.inference_mode()
def test_two_streams_are_the_plain_network_on_every_second_frame() -> None:
    network = small_detector()
    assert network.config.spacing == 2
    frames = normalize_frames(frames_of()[None], PIXELS)[0]
    found = frame_features(network.backbone, network.config, reader(frames), range(T), T, batch_size=4)
    for phase in range(2):
        stream = frames[phase::2]
        for block in network.backbone.modules():
            if isinstance(block, Bottleneck):
                block.num_frames = len(stream)
        torch.testing.assert_close(found[phase::2], network.backbone.backbone(stream), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_size_of_batches_changes_nothing_but_rounding(batch_size: int) -> None:
    network = small_detector()
    frames = normalize_frames(frames_of()[None], PIXELS)[0]
    found, expected = (
        frame_features(network.backbone, network.config, reader(frames), range(T), T, size) for size in (batch_size, 16)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("owned", [range(1), range(7), range(20, 31), range(44, 45), range(T)])
def test_a_part_needs_the_frames_that_it_says_and_no_others(owned: range) -> None:
    network = small_detector()
    extractor = FeatureExtractor(network, PIXELS, torch.float32, 8)
    frames, rows = frames_of(), torch.arange(T)
    whole = extractor(frames, rows, 0, range(T), T)
    needed = network.config.needed_steps(owned, T)
    others = torch.zeros_like(frames)
    others[needed.start : needed.stop] = frames[needed.start : needed.stop]
    part = extractor(others, rows[needed.start : needed.stop], needed.start, owned, T)
    assert torch.equal(part, whole[owned.start : owned.stop])
    assert part.dtype == torch.float16


def test_gradients_reach_the_first_layer_from_every_frame() -> None:
    network = small_detector()
    frames = normalize_frames(frames_of(9)[None], PIXELS)[0].requires_grad_()
    network.features(frames).sum().backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None
    assert (frames.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    first = next(network.backbone.backbone.parameters())
    assert first.grad is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 100}, "must be a multiple of 16"),
        ({"backbone": "pcan"}, "must be a network that classifies frames alone"),
        ({"pyramid_width": 30}, "must be a multiple of attention_heads"),
    ],
)
def test_configurations_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DetectorConfig.model_validate(changes)


@pytest.mark.parametrize(("num_frames", "spacing"), [(4, 4), (8, 2), (16, 1), (32, 1)])
def test_frames_are_mixed_as_far_apart_as_in_clips_of_two_seconds(num_frames: int, spacing: int) -> None:
    config = DetectorConfig.model_validate({"backbone": {"preset": "manet", "num_frames": num_frames}})
    assert config.spacing == spacing
