"""The detector by itself: sizes, what padding changes, boundaries of each class, and that it learns."""

from typing import Any

import numpy as np
import pytest
import torch

from microaction.models import CheckpointError
from microaction.models.detector import (
    DetectionLoss,
    PointDetector,
    Points,
    assign_targets,
    decode_detections,
    load_actionformer,
    soft_nms,
)

SMALL: dict[str, Any] = {
    "input_channels": 6,
    "width": 16,
    "num_heads": 2,
    "num_classes": 3,
    "num_levels": 3,
    "window": 5,
}


def small(**changes: Any) -> PointDetector:
    torch.manual_seed(0)
    return PointDetector.create(**(SMALL | changes)).eval()


@pytest.mark.parametrize("changes", [{}, {"boundaries": "per-class"}, {"mixing": "max-pool", "stem_blocks": 0}])
def test_shapes(changes: dict[str, Any]) -> None:
    outputs = small(**changes)(torch.randn(2, 37, 6))
    lengths = [40, 20, 10] if "mixing" in changes else [48, 24, 12]
    assert outputs.logits.shape == (2, sum(lengths), 3)
    assert outputs.offsets.shape == ((2, sum(lengths), 3, 2) if "boundaries" in changes else (2, sum(lengths), 2))
    assert (outputs.offsets >= 0).all()
    assert outputs.mask.sum(dim=1).tolist() == [37 + 19 + 10] * 2
    assert outputs.points.position_P.tolist() == [j * 2**level for level, n in enumerate(lengths) for j in range(n)]
    assert (outputs.logits[outputs.mask].sigmoid() < 0.05).all(), "training begins with few detections"


def test_what_lies_beyond_the_end_does_not_count() -> None:
    network = small()
    features = torch.randn(1, 37, 6)
    longer = torch.cat([features, torch.randn(1, 11, 6)], dim=1)
    mask = torch.arange(48)[None] < 37
    alone, masked = network(features), network(longer, mask)
    torch.testing.assert_close(alone.logits[alone.mask], masked.logits[masked.mask])
    torch.testing.assert_close(alone.offsets[alone.mask], masked.offsets[masked.mask])


def test_a_point_sees_its_window_alone() -> None:
    """A step that is changed far away changes nothing: tiles with a halo equal the whole."""
    network = small(num_levels=2)
    features = torch.randn(1, 160, 6)
    changed = features.clone()
    changed[:, 100:] += 1
    before, after = network(features), network(changed)
    differs = (before.logits != after.logits).any(dim=2)[0] & before.mask[0]
    reached = 100 - before.points.position_P[differs]
    assert 0 < reached.max() < 32


def test_overlapping_actions_share_points_or_have_their_own() -> None:
    points = Points.of_levels([32, 16, 8])
    segments, labels = torch.tensor([[4.0, 10.0], [4.0, 9.0], [0.0, 30.0]]), torch.tensor([0, 1, 2])
    shared = assign_targets(segments, labels, points, 3)
    assert shared.classes.sum(dim=0)[1] > 0
    first = int(torch.nonzero(shared.classes[:, 1])[0])
    assert shared.classes[first].tolist() == [0, 1, 0], "the shortest wins"
    own = assign_targets(segments, labels, points, 3, per_class=True)
    assert own.is_positive.any(dim=0).all(), "every action has a point"
    for class_id, (start, end) in enumerate(segments.tolist()):
        for point in torch.nonzero(own.is_positive[:, class_id]).flatten().tolist():
            position, stride = points.position_P[point].item(), points.stride_P[point].item()
            left, right = own.offsets[point, class_id].tolist()
            assert (position - left * stride, position + right * stride) == (start, end)
            assert abs(position - (start + end) / 2) < 1.5 * stride
    nothing = assign_targets(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), points, 3)
    assert not nothing.is_positive.any()


@pytest.mark.parametrize(
    "changes", [{}, {"boundaries": "per-class"}, {"boundaries": "per-class", "mixing": "max-pool"}]
)
def test_it_learns_where_actions_are(changes: dict[str, Any]) -> None:
    """Two overlapping actions of a video whose features say which of them run."""
    network = small(**changes).train()
    segments, labels = torch.tensor([[6.0, 14.0], [10.0, 26.0]]), torch.tensor([0, 2])
    features = torch.zeros(1, 48, 6)
    for (start, end), label in zip(segments.tolist(), labels.tolist(), strict=True):
        features[0, int(start) : int(end), label] = 1
    loss = DetectionLoss()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(80):
        outputs = network(features)
        targets = assign_targets(segments, labels, outputs.points, 3, per_class="boundaries" in changes)
        terms = loss(outputs, [targets])
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    with torch.inference_mode():
        (found,) = decode_detections(network.eval()(features), features_per_s=8.0, duration_s=6.0)
    for (start, end), label in zip(segments.tolist(), labels.tolist(), strict=True):
        best = int(np.flatnonzero(found.class_D == label)[0])
        np.testing.assert_allclose(found.segments_D2[best] * 8 - 0.5, [start, end], atol=1.0)


def test_equal_actions_of_two_classes_are_both_kept() -> None:
    kept = soft_nms(np.array([[0, 1], [0, 1], [0, 1]]), np.array([0.9, 0.8, 0.7]), np.array([0, 1, 0]))
    assert kept.class_D.tolist() == [0, 1, 0]
    np.testing.assert_allclose(kept.score_D, [0.9, 0.8, 0.7 * np.exp(-2)], rtol=1e-4)
    none = soft_nms(np.empty((0, 2)), np.empty(0), np.empty(0))
    assert len(none.score_D) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_heads": 3}, r"width \(16\) must be a multiple of num_heads \(3\)"),
        ({"window": 1}, r"window \(1\) must be at least 3"),
        ({"num_levels": 0}, r"num_levels \(0\) must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        small(**changes)


def test_other_weights_are_refused() -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="ActionFormer"):
        load_actionformer(network, {"a": torch.zeros(1)})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
