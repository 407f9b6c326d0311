import numpy as np
import pytest

from microaction.evaluation.calibration import (
    confidence_bins,
    expected_calibration_error,
    fit_temperature,
    probabilities_of,
)


def clips(temperature: float, num_clips: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right at the given temperature: targets are drawn by the probabilities that they have there."""
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(scale=3, size=(num_clips, 5))
    cumulative_NK = probabilities_of(logits_NK, temperature).cumsum(axis=1)
    return logits_NK, (rng.random((num_clips, 1)) > cumulative_NK).sum(axis=1).clip(max=4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_targets_is_found_and_mends_the_error(temperature: float) -> None:
    logits_NK, target_N = clips(temperature)
    found = fit_temperature(logits_NK, target_N)
    assert found == pytest.approx(temperature, rel=0.05)
    raw, mended = (expected_calibration_error(probabilities_of(logits_NK, at), target_N) for at in (1.0, found))
    assert mended < 0.02
    assert mended <= raw
    if temperature != 1.0:
        assert raw > 0.05


def test_a_model_that_is_always_right_has_a_temperature_all_the_same() -> None:
    target_N = np.arange(5)
    assert 0.05 <= fit_temperature(10 * np.eye(5), target_N) < 0.5
    assert 15 < fit_temperature(-10 * np.eye(5), target_N) <= 20


def test_probabilities_are_softmax_and_survive_large_logits() -> None:
    out = probabilities_of(np.array([[1e4, 0.0], [0.0, 2.0]]), 2.0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.array([[1, 0], [1 / (1 + np.e), np.e / (1 + np.e)]]), rtol=1e-6)


def test_the_error_is_the_mean_distance_of_confidence_and_accuracy() -> None:
    """Four clips of 0.9, of which two are right, and two of 0.6, of which both are: (4·0.4 + 2·0.4) / 6."""
    probabilities_NK = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    target_N = np.array([0, 0, 1, 1, 0, 0])
    bins = confidence_bins(probabilities_NK, target_N, num_bins=10)
    assert [(each.num_clips, each.accuracy) for each in bins] == [(2, 1.0), (4, 0.5)]
    assert [each.confidence for each in bins] == pytest.approx([0.6, 0.9])
    assert bins[0].low == 0.5
    assert bins[0].high == 0.6, "a bin holds its upper end, not its lower"
    assert expected_calibration_error(probabilities_NK, target_N, num_bins=10) == pytest.approx(0.4)
