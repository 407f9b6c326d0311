"""The detector computes what ActionFormer's published code computes: outputs, targets, losses, gradients, decoded actions."""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from microaction.models.detector import (
    DetectionLoss,
    DetectorOutputs,
    PointDetector,
    Targets,
    assign_targets,
    decode_detections,
    load_actionformer,
    soft_nms,
)
from microaction.models.detector.decoding import candidates

SIZE: dict[str, Any] = {"input_channels": 40, "width": 32, "num_heads": 4, "num_classes": 52, "num_levels": 5}
LOCAL: dict[str, Any] = SIZE | {"window": 9, "stem_blocks": 1}
LENGTHS = {"full": 256, "padded": 203}


class Records(NamedTuple):
    """What the published code gave, and what of."""

    arrays: dict[str, np.ndarray]
    keys: dict[str, Any]


@pytest.fixture(scope="module")
def records(shared: Path) -> Records:
    with np.load(shared / "data/parity/detector_parity.npz") as file:
        arrays = {name: file[name] for name in file}
    return Records(arrays, json.loads((shared / "data/parity/detector_reference_keys.json").read_text()))


def generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def weight(name: str, shape: list[int]) -> Tensor:
    rng = generator(name)
    if name.endswith(".scale"):
        values = 0.5 + rng.random(shape)
    elif name.endswith("bias"):
        values = 0.05 * rng.standard_normal(shape)
    elif len(shape) == 3 and shape[0] == 1:
        values = 0.5 + rng.random(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, np.float32))


def features(case: str) -> Tensor:
    values = generator(f"features.{case}").standard_normal((40, LENGTHS[case])).astype(np.float32)
    return torch.from_numpy(values).T[None]


@pytest.fixture(scope="module")
def detector(records: Records) -> PointDetector:
    state = records.keys["variants"]["local"]["state"]
    network = PointDetector.create(**LOCAL)
    load_actionformer(network, {name: weight(name, shape) for name, shape in state.items()})
    return network.eval()


def targets_of(records: Records, outputs: DetectorOutputs) -> Targets:
    segments, labels = (torch.from_numpy(records.arrays[f"targets.{name}"]) for name in ("segments", "labels"))
    return assign_targets(segments, labels, outputs.points)


@pytest.mark.parametrize("case", LENGTHS)
def test_outputs(case: str, detector: PointDetector, records: Records) -> None:
    with torch.inference_mode():
        outputs = detector(features(case))
    is_real = records.arrays[f"local.{case}.mask"].reshape(-1)
    assert np.array_equal(outputs.mask[0].numpy(), is_real)
    for name in ("logits", "offsets"):
        expected = records.arrays[f"local.{case}.{name}"][is_real]
        found = getattr(outputs, name)[0].numpy()[is_real]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_targets_losses_and_gradients(detector: PointDetector, records: Records) -> None:
    inputs = features("padded").requires_grad_()
    outputs = detector(inputs)
    targets = targets_of(records, outputs)
    expected_classes = {tuple(index) for index in records.arrays["targets.cls_index"].tolist()}
    assert {tuple(index) for index in torch.nonzero(targets.classes).tolist()} == expected_classes
    is_positive = records.arrays["targets.positive"]
    assert np.array_equal(targets.is_positive.numpy(), is_positive)
    np.testing.assert_array_equal(targets.offsets.numpy()[is_positive], records.arrays["targets.offsets"][is_positive])
    for smoothing in (0.0, 0.1):
        loss = DetectionLoss(smoothing)
        for step in (1, 2):
            terms = loss(outputs, [targets])
            expected = records.keys["losses"][f"smoothing {smoothing} step {step}"]
            assert float(loss.normalizer) == pytest.approx(expected["normalizer"], rel=1e-6)
            for name, term in zip(("total", "cls", "reg"), terms, strict=True):
                assert term.item() == pytest.approx(expected[name], rel=1e-5)
            if (smoothing, step) == (0.0, 1):
                terms.total.backward(retain_graph=True)
    assert inputs.grad is not None
    expected_grad = records.arrays["loss.grad_features"]
    # Of all four losses only the first was followed back.
    np.testing.assert_allclose(inputs.grad[0].T.numpy(), expected_grad, rtol=0, atol=1e-4 * np.abs(expected_grad).max())


def test_decoded_actions(detector: PointDetector, records: Records) -> None:
    with torch.inference_mode():
        points = detector(features("padded")).points
    arrays = records.arrays
    logits = torch.from_numpy(arrays["local.padded.logits"])[None] + records.keys["decode_logit_shift"]
    outputs = DetectorOutputs(
        logits,
        torch.from_numpy(arrays["local.padded.offsets"])[None],
        torch.from_numpy(arrays["local.padded.mask"].reshape(1, -1)),
        points,
    )
    found = candidates(outputs, 0)
    assert len(found.score_D) == arrays["decode.num_candidates"][0]
    (decoded,) = decode_detections(outputs, duration_s=203 / 8)
    expected = arrays["decode.seconds"]
    np.testing.assert_allclose(decoded.score_D, expected[:, 2], rtol=1e-5)
    np.testing.assert_allclose(decoded.segments_D2, expected[:, :2], rtol=0, atol=1e-4)
    assert np.array_equal(decoded.class_D, expected[:, 3])


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.9])
def test_suppression(sigma: float, records: Records) -> None:
    given, expected = records.arrays["nms.input"], records.arrays[f"nms.soft_{sigma}"]
    kept = soft_nms(given[:, :2], given[:, 2], given[:, 3], sigma=sigma, max_detections=None)
    assert len(kept.score_D) == len(expected)
    np.testing.assert_allclose(kept.score_D, expected[:, 2], rtol=1e-5)
    order = [np.lexsort((rows[:, 0], -rows[:, 2])) for rows in (expected, np.c_[kept.segments_D2, kept.score_D])]
    np.testing.assert_allclose(kept.segments_D2[order[1]], expected[order[0], :2], rtol=1e-5)
