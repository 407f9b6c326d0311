import numpy as np

from microaction.retraining.gates import ChangedConfusion, Comparison, changed_confusions, golden_parity, judge
from microaction.retraining.settings import GatesConfig
from microaction.taxonomy import ACTIONS

NUM_CLIPS = 400
TARGET_N = np.arange(NUM_CLIPS) % 4


def scores(target_N: np.ndarray, *, wrong: float, sure: float = 0.9, seed: int = 0) -> np.ndarray:
    """Return probabilities of a model that is wrong in a fraction `wrong` of the clips, and always as sure."""
    rng = np.random.default_rng(seed)
    predicted_N = np.where(rng.random(len(target_N)) < wrong, (target_N + 1) % 4, target_N)
    scores_NK = np.full((len(target_N), len(ACTIONS)), (1 - sure) / (len(ACTIONS) - 1))
    scores_NK[np.arange(len(target_N)), predicted_N] = sure
    return scores_NK


def failed(candidate_NK: np.ndarray, production_NK: np.ndarray, **gates: float) -> list[str]:
    verdicts = judge(
        Comparison(candidate_NK, production_NK, TARGET_N), ACTIONS, 0.01, GatesConfig.model_validate(gates)
    )
    return [verdict.gate for verdict in verdicts if not verdict.is_passed]


def test_a_better_model_passes_and_a_worse_one_does_not() -> None:
    good_NK, bad_NK = scores(TARGET_N, wrong=0.1), scores(TARGET_N, wrong=0.4)
    assert failed(good_NK, bad_NK) == []
    assert failed(good_NK, good_NK) == [], "as good is good enough"
    assert "F1 mean" in failed(bad_NK, good_NK)
    assert failed(bad_NK, good_NK, f1_mean_margin=-0.5, class_f1_margin=0.5, calibration_margin=0.5) == []
    assert failed(good_NK, good_NK, f1_mean_margin=0.01) == ["F1 mean"]


def test_one_class_with_enough_clips_is_enough_to_fail() -> None:
    production_NK = scores(TARGET_N, wrong=0.2)
    candidate_NK = scores(TARGET_N, wrong=0.0)
    third = np.flatnonzero(TARGET_N == 2)
    candidate_NK[third] = scores(TARGET_N[third], wrong=0.9)
    worse = failed(candidate_NK, production_NK, f1_mean_margin=-1)
    assert f"F1 of {ACTIONS[2]}" in worse
    assert f"F1 of {ACTIONS[0]}" not in worse
    assert failed(candidate_NK, production_NK, f1_mean_margin=-1, min_support=NUM_CLIPS) == []


def test_too_few_held_out_clips_fail() -> None:
    few_NK = scores(TARGET_N[:3], wrong=1)
    verdicts = judge(Comparison(few_NK, few_NK, TARGET_N[:3]), ACTIONS, 0.01, GatesConfig())
    assert [verdict.gate for verdict in verdicts if not verdict.is_passed] == ["held-out clips"]


def test_predictions_of_absent_actions_do_not_decide() -> None:
    """Each stray action would be a class of its own with an F1 of 0, whose number differs between the models."""
    better_NK, worse_NK = scores(TARGET_N, wrong=0), scores(TARGET_N, wrong=0.25)
    for stray in range(20):
        better_NK[stray] = np.eye(len(ACTIONS))[10 + stray] * 0.9 + 0.1 / len(ACTIONS)
    assert (better_NK.argmax(axis=1) == TARGET_N).mean() > (worse_NK.argmax(axis=1) == TARGET_N).mean() + 0.1
    gates = {"calibration_margin": 1, "class_f1_margin": 1}
    assert failed(better_NK, worse_NK, **gates) == []
    assert failed(worse_NK, better_NK, **gates) == ["F1 mean"]


def test_an_overconfident_model_fails_its_calibration_gate() -> None:
    calibrated_NK = scores(TARGET_N, wrong=0.2, sure=0.8)
    assert failed(scores(TARGET_N, wrong=0.2, sure=0.99), calibrated_NK) == ["calibration error"]


def test_a_network_that_labels_differently_fails(model: str) -> None:
    same_NK = scores(TARGET_N, wrong=0.1)
    verdicts = judge(Comparison(same_NK, same_NK, TARGET_N), ACTIONS, 0.2, GatesConfig())
    assert [verdict.gate for verdict in verdicts if not verdict.is_passed] == [
        "golden output, as labeling runs the network"
    ]
    assert 0 <= golden_parity(model, "cpu") < 0.05


def test_the_most_changed_confusions_come_first() -> None:
    right_NK, wrong_NK = scores(TARGET_N, wrong=0.0), scores(TARGET_N, wrong=0.0)
    wrong_NK[np.flatnonzero(TARGET_N == 1)[:7]] = np.eye(len(ACTIONS))[3]
    wrong_NK[np.flatnonzero(TARGET_N == 0)[:2]] = np.eye(len(ACTIONS))[2]
    assert changed_confusions(Comparison(wrong_NK, right_NK, TARGET_N), ACTIONS, max_pairs=5) == [
        ChangedConfusion(ACTIONS[1], ACTIONS[3], 7, 0),
        ChangedConfusion(ACTIONS[0], ACTIONS[2], 2, 0),
    ]
