"""Calibration: the fitted temperature, and the error that it reduces."""

import numpy as np
import pytest

from microaction.evaluation.calibration import (
    confidence_bins,
    expected_calibration_error,
    fit_temperature,
    probabilities_of,
)


def clips(temperature: float, num_clips: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are calibrated at the given temperature: targets are drawn from their probabilities there."""
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(scale=3, size=(num_clips, 5))
    cumulative_NK = probabilities_of(logits_NK, temperature).cumsum(axis=1)
    return logits_NK, (rng.random((num_clips, 1)) > cumulative_NK).sum(axis=1).clip(max=4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_reduces_the_error(temperature: float) -> None:
    logits_NK, target_N = clips(temperature)
    found = fit_temperature(logits_NK, target_N)
    assert found == pytest.approx(temperature, rel=0.05)
    raw, calibrated = (expected_calibration_error(probabilities_of(logits_NK, at), target_N) for at in (1.0, found))
    assert calibrated < 0.02
    assert calibrated <= raw
    if temperature != 1.0:
        assert raw > 0.05


def test_the_temperature_of_perfect_logits_is_limited() -> None:
    target_N = np.arange(5)
    assert 0.05 <= fit_temperature(10 * np.eye(5), target_N) < 0.5
    assert 15 < fit_temperature(-10 * np.eye(5), target_N) <= 20


def test_probabilities_are_a_softmax_that_takes_large_logits() -> None:
    out = probabilities_of(np.array([[1e4, 0.0], [0.0, 2.0]]), 2.0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.array([[1, 0], [1 / (1 + np.e), np.e / (1 + np.e)]]), rtol=1e-6)


def test_the_error_is_the_mean_gap_of_confidence_and_accuracy() -> None:
    """Four clips at 0.9, two of them right, and two clips at 0.6, both right: (4·0.4 + 2·0.4) / 6."""
    probabilities_NK = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    target_N = np.array([0, 0, 1, 1, 0, 0])
    bins = confidence_bins(probabilities_NK, target_N, num_bins=10)
    assert [(each.num_samples, each.accuracy) for each in bins] == [(2, 1.0), (4, 0.5)]
    assert [each.confidence for each in bins] == pytest.approx([0.6, 0.9])
    assert bins[0].low == 0.5
    assert bins[0].high == 0.6, "a bin includes its upper end, not its lower"
    assert expected_calibration_error(probabilities_NK, target_N, num_bins=10) == pytest.approx(0.4)
