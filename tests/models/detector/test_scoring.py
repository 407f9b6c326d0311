"""From a detector's outputs to detections of whole videos."""

import numpy as np
import pytest
import torch

from microaction.models.detector import DetectionHead, Detections, find_detections, soft_nms
from microaction.models.detector.scoring import MAX_PER_S, dense_runs, mean_over, most_likely
from tests.models.detectors import small_detector


def test_the_mean_over_a_segment_counts_parts_of_steps() -> None:
    dense = torch.tensor([[0.0], [1.0], [0.5], [0.0]])
    # Step i speaks for i − 0.5 to i + 0.5.
    segments = torch.tensor([[0.5, 1.5], [0.0, 1.0], [0.5, 2.5], [-0.5, 3.5], [1.0, 2.0], [2.9, 2.9]])
    found = mean_over(dense, segments, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 0.75, 0.375, 0.75, 0.0]))


def test_runs_are_above_each_threshold() -> None:
    dense = np.zeros((6, 2), np.float32)
    dense[1:4, 1] = 0.55, 0.85, 0.55
    found = dense_runs(dense)
    runs = {
        (*segment, round(float(score), 3))
        for segment, score in zip(found.segments_D2.tolist(), found.score_D, strict=True)
    }
    assert runs == {(0.5, 3.5, 0.65), (1.5, 2.5, 0.85)}
    assert set(found.class_D.tolist()) == {1}


def test_a_second_has_so_many_candidates_whatever_the_length() -> None:
    rng = np.random.default_rng(0)
    middles = rng.uniform(0, 80, 1000)
    found = Detections(
        np.stack([middles - 1, middles + 1], axis=1), rng.random(1000).astype(np.float32), np.zeros(1000, np.int64)
    )
    kept = most_likely(found)
    seconds, counts = np.unique((kept.segments_D2.mean(axis=1) + 0.5) // 8, return_counts=True)
    assert len(seconds) > 9
    assert counts.max() == MAX_PER_S
    first = (middles + 0.5) // 8 == 3
    assert set(kept.score_D[(kept.segments_D2.mean(axis=1) + 0.5) // 8 == 3]) == set(
        np.sort(found.score_D[first])[-MAX_PER_S:]
    )


def test_suppression_in_groups_is_suppression_of_all() -> None:
    rng = np.random.default_rng(1)
    start = rng.uniform(0, 60, 200)
    segments = np.stack([start, start + rng.uniform(0.5, 6, 200)], axis=1).astype(np.float32)
    score, classes = rng.random(200).astype(np.float32), rng.integers(0, 2, 200)
    found = soft_nms(segments, score, classes, max_detections=None)
    left = {class_id: np.flatnonzero(classes == class_id) for class_id in (0, 1)}
    expected = set()
    for class_id, index in left.items():
        scores = {int(i): float(score[i]) for i in index}
        while scores:
            best = max(scores, key=lambda i: scores[i])
            expected.add((best, class_id, round(scores.pop(best), 4)))
            for i in list(scores):
                overlap = max(0.0, min(segments[best, 1], segments[i, 1]) - max(segments[best, 0], segments[i, 0]))
                union = np.diff(segments[[best, i]]).sum() - overlap
                scores[i] *= float(np.exp(-((overlap / union) ** 2) / 0.5))
                if scores[i] < 0.001:
                    del scores[i]
    row_of = {tuple(segment): row for row, segment in enumerate(segments.tolist())}
    result = {
        (row_of[tuple(segment)], int(class_id), round(float(value), 4))
        for segment, class_id, value in zip(found.segments_D2.tolist(), found.class_D, found.score_D, strict=True)
    }
    assert result == expected


@pytest.mark.parametrize("score", ["product", "points", "dense"])
def test_detections_lie_in_the_video_best_first(score: str) -> None:
    network = small_detector()
    features = torch.randn(1, 50, 256, generator=torch.manual_seed(0))
    with torch.inference_mode():
        found = find_detections(network.detector(features), 50, score)  # type: ignore[arg-type]
    assert len(found.score_D) > 0
    assert found.segments_D2.min() >= -0.5
    assert found.segments_D2.max() <= 49.5
    assert (np.diff(found.score_D) <= 0).all()
    assert 0 < found.score_D.min() <= found.score_D.max() <= 1


def test_a_head_travels_as_bytes() -> None:
    network = small_detector(mixing="attention", attention_window=5, boundaries="shared")
    head = DetectionHead(network.detector, network.config)
    stored = np.random.default_rng(0).random((40, 16)).astype(np.float16)
    ours, theirs = head(stored), DetectionHead.from_bytes(head.to_bytes())(stored)
    assert all(np.array_equal(*pair) for pair in zip(ours[0], theirs[0], strict=True))
    assert np.array_equal(ours[1], theirs[1])


def test_local_attention_of_long_sequences_is_that_of_their_parts() -> None:
    network = small_detector(mixing="attention", attention_window=5)
    features = torch.randn(1, 1200, 256, generator=torch.manual_seed(0))
    with torch.inference_mode():
        whole = network.detector(features)
        part = network.detector(features[:, 400:800])
    # Far from the part's ends nothing differs.
    torch.testing.assert_close(whole.logits[:, 560:640], part.logits[:, 160:240], rtol=1e-4, atol=1e-4)
