"""The metrics of recognition, against scikit-learn's and by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, top_k_accuracy_score

from microaction.evaluation import recognition_metrics
from microaction.evaluation.metrics import body_part_probabilities, confusion, measure, per_class_metrics
from microaction.taxonomy import BODY_PART_OF

KEYS = {
    *("body_top1", "action_top1", "action_top5", "body_f1_macro", "body_f1_micro"),
    *("action_f1_macro", "action_f1_micro", "f1_mean"),
}


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_metrics_equal_those_of_scikit_learn(num_clips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, target = rng.normal(size=(num_clips, 52)), rng.integers(52, size=num_clips)
    scores[np.arange(num_clips), target] += 2
    metrics = recognition_metrics(scores, target)
    assert metrics.keys() == KEYS
    predicted, body = scores.argmax(axis=1), np.array(BODY_PART_OF)
    assert metrics["action_f1_macro"] == f1_score(target, predicted, average="macro")
    assert metrics["body_f1_macro"] == f1_score(body[target], body[predicted], average="macro")
    assert metrics["action_f1_micro"] == pytest.approx(metrics["action_top1"])
    assert metrics["body_f1_micro"] == pytest.approx(metrics["body_top1"])
    assert metrics["action_top5"] == pytest.approx(top_k_accuracy_score(target, scores, k=5, labels=np.arange(52)))
    four = [metrics[f"{part}_f1_{kind}"] for part in ("body", "action") for kind in ("macro", "micro")]
    assert metrics["f1_mean"] == pytest.approx(sum(four) / 4)


def test_summed_probabilities_may_give_another_body_part() -> None:
    """Two actions of the head at 0.3 each outweigh the most likely action, one of the body at 0.4."""
    probabilities = np.zeros((1, 52))
    probabilities[0, [0, 9, 10]] = 0.4, 0.3, 0.3
    target = np.array([9])
    assert body_part_probabilities(probabilities).sum() == pytest.approx(1)
    assert body_part_probabilities(probabilities)[0, :2].tolist() == pytest.approx([0.4, 0.6])
    metrics = measure(probabilities, target)
    assert (metrics["body_top1"], metrics["body_top1_summed"], metrics["body_f1_macro_summed"]) == (0.0, 1.0, 1.0)
    assert metrics["calibration_error"] == pytest.approx(0.4), "wrong, with a confidence of 0.4"
    assert metrics.keys() == KEYS | {"body_top1_summed", "body_f1_macro_summed", "calibration_error"}


def test_a_wrong_action_may_have_the_right_body_part() -> None:
    scores = np.zeros((2, 52))
    scores[0, 10] = scores[1, 51] = 1  # shaking head, scratching feet
    metrics = recognition_metrics(scores, np.array([9, 0]))  # nodding, shaking body
    assert (metrics["body_top1"], metrics["action_top1"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (np.zeros((2, 51)), np.zeros(2, int), r"\[N, K=52\]"),
        (np.zeros((0, 52)), np.zeros(0, int), "at least one clip"),
        (np.full((1, 52), np.nan), np.zeros(1, int), "finite"),
        (np.zeros((1, 52)), np.array([52]), r"must be in 0\.\.51"),
    ],
)
def test_invalid_scores_and_targets_raise_errors(scores: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recognition_metrics(scores, target)


def test_per_class_metrics_agree_with_the_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.normal(size=(500, 52)), rng.integers(40, size=500)
    counts = confusion(scores, target)
    rows = per_class_metrics(scores, target)
    assert counts.sum() == 500
    assert [row["support"] for row in rows] == counts.sum(axis=1).tolist()
    assert rows[3]["recall"] == pytest.approx(counts[3, 3] / counts[3].sum())
    assert rows[51] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}


def test_a_constant_prediction_on_the_validation_list(shared: Path) -> None:
    """Always nodding, on MA-52's own validation labels: the baseline that a model must beat."""
    lines = (shared / "data/ma52/val_list_videos.txt").read_text().splitlines()
    target = np.array([int(line.split()[1]) for line in lines])
    scores = np.zeros((len(target), 52))
    scores[:, 9] = 1
    metrics = recognition_metrics(scores, target)
    assert len(target) == 5586
    assert metrics["action_top1"] == pytest.approx(np.mean(target == 9))
    assert metrics["f1_mean"] < 0.25
