"""How well probabilities are calibrated, and the temperature that improves that.

Shapes: N clips, K actions. Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

NUM_BINS = 15  # as in the source
MAX_TEMPERATURE = 20.0  # a network that is always right has no best temperature: it is limited to 1/20 … 20


@dataclass(frozen=True)
class ConfidenceBin:
    """Clips whose top probability is in (low, high], or detections whose score is: how many, their mean probability, and the
    fraction that is right."""

    low: float
    high: float
    num_samples: int
    confidence: float
    accuracy: float


def probabilities_of(logits_NK: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of the logits over the temperature, [N, K] float32."""
    return np.asarray(softmax(logits_NK / temperature, axis=1), np.float32)


def fit_temperature(logits_NK: np.ndarray, target_N: np.ndarray) -> float:
    """Return the temperature that maximizes the likelihood of the targets, within [1/20, 20]; it changes no ranking."""

    def negative_log_likelihood(log_temperature: float) -> float:
        log_probabilities_NK = log_softmax(logits_NK.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(log_probabilities_NK[np.arange(len(target_N)), target_N].mean())

    limit = np.log(MAX_TEMPERATURE)
    best = minimize_scalar(negative_log_likelihood, bounds=(-limit, limit), method="bounded")
    return float(np.exp(best.x))


def confidence_bins(
    probabilities_NK: np.ndarray, target_N: np.ndarray, num_bins: int = NUM_BINS
) -> list[ConfidenceBin]:
    """Return the bins that hold clips, of `num_bins` bins of equal width from 0 to 1."""
    return binned(probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1) == target_N, num_bins)


def binned(confidence_N: np.ndarray, is_right_N: np.ndarray, num_bins: int = NUM_BINS) -> list[ConfidenceBin]:
    """Return the bins that hold samples, of `num_bins` bins of equal width, by how sure of each the network is [N] in [0, 1]."""
    bin_N = np.clip(np.ceil(confidence_N * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        ConfidenceBin(
            index / num_bins,
            (index + 1) / num_bins,
            int(inside.sum()),
            float(confidence_N[inside].mean()),
            float(is_right_N[inside].mean()),
        )
        for index in range(num_bins)
        if (inside := bin_N == index).any()
    ]


def expected_calibration_error(probabilities_NK: np.ndarray, target_N: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Return the mean over the clips of the distance between their bin's confidence and its accuracy, in [0, 1]."""
    return mean_gap(confidence_bins(probabilities_NK, target_N, num_bins))


def mean_gap(bins: Sequence[ConfidenceBin]) -> float:
    """Return the mean over the samples of the distance between their bin's confidence and its accuracy; 0 without samples."""
    num_samples = sum(each.num_samples for each in bins)
    return sum(each.num_samples * abs(each.confidence - each.accuracy) for each in bins) / max(num_samples, 1)
