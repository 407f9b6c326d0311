"""The metrics of the MA-52 benchmark, from scores and targets.

Shapes: N clips, K actions, P body parts. Source: Guo et al. 2024; F1 as scikit-learn's f1_score computes it.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from microaction.evaluation.calibration import expected_calibration_error
from microaction.taxonomy import BODY_PART_OF

TOP_K = 5


def measure(probabilities_NK: np.ndarray, target_N: np.ndarray, body_NP: np.ndarray | None = None) -> dict[str, float]:
    """Return all metrics of a model: `recognition_metrics`, `summed_body_metrics` and the expected calibration error.

    With `body_NP`, the probabilities of a network's own classifiers of body parts, those answer for the body parts.
    """
    return {
        **recognition_metrics(probabilities_NK, target_N, body_NP=body_NP),
        **summed_body_metrics(probabilities_NK, target_N, body_NP=body_NP),
        "calibration_error": expected_calibration_error(probabilities_NK, target_N),
    }


def recognition_metrics(
    scores_NK: np.ndarray,
    target_N: np.ndarray,
    body_part_of: Sequence[int] = BODY_PART_OF,
    *,
    body_NP: np.ndarray | None = None,
) -> dict[str, float]:
    """Return top-1, top-5 and F1 of body parts and actions, each in [0, 1].

    Scores may be logits or probabilities; `target_N` holds action labels. A clip's body part is that of its best action, or the
    best of `body_NP`.
    `f1_mean` is the mean of the four F1 scores; a micro F1 equals the top-1. A macro F1 is the mean over the classes that
    occur among targets or predictions. Raises `ValueError` for shapes or labels that do not fit, scores that are not finite,
    or no clips.
    """
    scores_NK, target_N = _checked(scores_NK, target_N, len(body_part_of))
    body = np.asarray(body_part_of)
    predicted_N = scores_NK.argmax(axis=1)
    body_N = body[predicted_N] if body_NP is None else body_NP.argmax(axis=1)
    # Stable, so that of equal scores the lower label comes first, as in argmax.
    top_N5 = np.argsort(-scores_NK, axis=1, kind="stable")[:, :TOP_K]
    metrics = {
        "body_top1": float(np.mean(body_N == body[target_N])),
        "action_top1": float(np.mean(predicted_N == target_N)),
        "action_top5": float(np.mean((top_N5 == target_N[:, None]).any(axis=1))),
        "body_f1_macro": float(_sklearn().f1_score(body[target_N], body_N, average="macro")),
        "body_f1_micro": float(_sklearn().f1_score(body[target_N], body_N, average="micro")),
        "action_f1_macro": float(_sklearn().f1_score(target_N, predicted_N, average="macro")),
        "action_f1_micro": float(_sklearn().f1_score(target_N, predicted_N, average="micro")),
    }
    four = ("body_f1_macro", "body_f1_micro", "action_f1_macro", "action_f1_micro")
    return metrics | {"f1_mean": sum(metrics[name] for name in four) / len(four)}


def f1_mean_over_target_classes(
    scores_NK: np.ndarray, target_N: np.ndarray, body_part_of: Sequence[int] = BODY_PART_OF
) -> float:
    """Return `f1_mean` with macro F1s over the classes among the targets alone, so that two models are compared over the same
    classes, independently of what else they predict. Raises as `recognition_metrics`."""
    scores_NK, target_N = _checked(scores_NK, target_N, len(body_part_of))
    body = np.asarray(body_part_of)
    best_N = scores_NK.argmax(axis=1)
    four = [
        score
        for actual_N, predicted_N in ((target_N, best_N), (body[target_N], body[best_N]))
        for score in (
            float(
                _sklearn().f1_score(actual_N, predicted_N, average="macro", labels=np.unique(actual_N), zero_division=0)
            ),
            float(np.mean(actual_N == predicted_N)),
        )
    ]
    return sum(four) / len(four)


def summed_body_metrics(
    probabilities_NK: np.ndarray,
    target_N: np.ndarray,
    body_part_of: Sequence[int] = BODY_PART_OF,
    *,
    body_NP: np.ndarray | None = None,
) -> dict[str, float]:
    """Return `body_top1_summed` and `body_f1_macro_summed`: a clip's body part is the one whose actions are most likely
    together, where `recognition_metrics` takes that of the most likely action; the best of `body_NP` if that is given."""
    probabilities_NK, target_N = _checked(probabilities_NK, target_N, len(body_part_of))
    body = np.asarray(body_part_of)
    if body_NP is None:
        body_NP = body_part_probabilities(probabilities_NK, body_part_of)
    predicted_N = body_NP.argmax(axis=1)
    return {
        "body_top1_summed": float(np.mean(predicted_N == body[target_N])),
        "body_f1_macro_summed": float(_sklearn().f1_score(body[target_N], predicted_N, average="macro")),
    }


def body_part_probabilities(probabilities_NK: np.ndarray, body_part_of: Sequence[int] = BODY_PART_OF) -> np.ndarray:
    """Return the probability of each body part [N, P]: the sum over its actions."""
    membership_KP = np.eye(max(body_part_of) + 1, dtype=probabilities_NK.dtype)[np.asarray(body_part_of)]
    return np.asarray(probabilities_NK @ membership_KP)


def per_class_metrics(scores_NK: np.ndarray, target_N: np.ndarray) -> list[dict[str, float]]:
    """Return precision, recall, f1 and support of each of the K actions; 0 if nothing was predicted or there are no clips."""
    num_classes = np.asarray(scores_NK).shape[1]
    scores_NK, target_N = _checked(scores_NK, target_N, num_classes)
    columns = _sklearn().precision_recall_fscore_support(
        target_N, scores_NK.argmax(axis=1), labels=np.arange(num_classes), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    return [{name: float(value) for name, value in zip(names, row, strict=True)} for row in zip(*columns, strict=True)]


def confusion(scores_NK: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Return counts [K, K]: rows are true actions, columns predicted ones."""
    num_classes = np.asarray(scores_NK).shape[1]
    scores_NK, target_N = _checked(scores_NK, target_N, num_classes)
    return np.asarray(_sklearn().confusion_matrix(target_N, scores_NK.argmax(axis=1), labels=np.arange(num_classes)))


def _checked(scores_NK: np.ndarray, target_N: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    scores_NK, target_N = np.asarray(scores_NK), np.asarray(target_N)
    if scores_NK.ndim != 2 or scores_NK.shape[1] != num_classes or target_N.shape != scores_NK.shape[:1]:
        raise ValueError(
            f"scores of shape {scores_NK.shape} and targets of shape {target_N.shape} must be [N, K={num_classes}] and [N]"
        )
    if len(target_N) == 0:
        raise ValueError("there must be at least one clip")
    if not np.isfinite(scores_NK).all():
        raise ValueError("scores must be finite: a model that returns NaN cannot be evaluated")
    if target_N.min() < 0 or target_N.max() >= num_classes:
        raise ValueError(f"targets {target_N.min()}..{target_N.max()} must be in 0..{num_classes - 1}")
    return scores_NK, target_N


def _sklearn() -> ModuleType:
    """Return scikit-learn's metrics, imported where they are used: the import takes a second of every worker's start."""
    import sklearn.metrics

    return sklearn.metrics  # type: ignore[no-any-return]
