"""The gates that a candidate must pass to replace the model in production. Shapes: N clips, K actions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from microaction.evaluation.metrics import confusion, f1_mean_over_target_classes, measure, per_class_metrics
from microaction.models import load_checkpoint
from microaction.models.classifier import Classifier, Execution, preferred_precision
from microaction.models.golden import golden_frames
from microaction.retraining.settings import GatesConfig


@dataclass(frozen=True)
class Comparison:
    """Candidate and production on the same held-out clips: the probabilities of both, the true actions, and how many clips were
    left out because one of them could not read them."""

    candidate_NK: np.ndarray
    production_NK: np.ndarray
    target_N: np.ndarray
    num_left_out: int = 0


@dataclass(frozen=True)
class Verdict:
    """The verdict of one gate: the candidate's figure, production's (None if there is nothing to compare), and the limit that the
    candidate's must keep: a minimum or a maximum."""

    gate: str
    candidate: float
    production: float | None
    limit: float
    is_at_least: bool

    @property
    def is_passed(self) -> bool:
        """Whether the candidate passes."""
        return self.candidate >= self.limit if self.is_at_least else self.candidate <= self.limit


@dataclass(frozen=True)
class ChangedConfusion:
    """How often either model predicted an action for another."""

    actual: str
    predicted: str
    candidate: int
    production: int


def judge(comparison: Comparison, labels: Sequence[str], golden_difference: float, gates: GatesConfig) -> list[Verdict]:
    """Return the verdicts of all gates; `golden_difference` is that of `golden_parity`."""
    candidate_NK, production_NK, target_N = comparison.candidate_NK, comparison.production_NK, comparison.target_N
    ours, theirs = measure(candidate_NK, target_N), measure(production_NK, target_N)
    our_f1 = f1_mean_over_target_classes(candidate_NK, target_N)
    their_f1 = f1_mean_over_target_classes(production_NK, target_N)
    verdicts = [
        Verdict("held-out clips", len(target_N), None, gates.min_held_out, True),
        Verdict("F1 mean", our_f1, their_f1, their_f1 + gates.f1_mean_margin, True),
        Verdict(
            "calibration error",
            ours["calibration_error"],
            theirs["calibration_error"],
            theirs["calibration_error"] + gates.calibration_margin,
            False,
        ),
        Verdict("golden output, as labeling runs the network", golden_difference, None, gates.golden_margin, False),
    ]
    pairs = zip(
        labels, per_class_metrics(candidate_NK, target_N), per_class_metrics(production_NK, target_N), strict=True
    )
    return verdicts + [
        Verdict(f"F1 of {label}", mine["f1"], other["f1"], other["f1"] - gates.class_f1_margin, True)
        for label, mine, other in pairs
        if mine["support"] >= gates.min_support
    ]


def changed_confusions(comparison: Comparison, labels: Sequence[str], max_pairs: int) -> list[ChangedConfusion]:
    """Return the confusions whose number changed most, the most changed first."""
    ours_KK = confusion(comparison.candidate_NK, comparison.target_N)
    theirs_KK = confusion(comparison.production_NK, comparison.target_N)
    change_KK = np.abs(ours_KK - theirs_KK) * (1 - np.eye(len(ours_KK), dtype=ours_KK.dtype))
    order = np.argsort(-change_KK, axis=None, kind="stable")[:max_pairs]
    pairs = [divmod(int(flat_index), len(ours_KK)) for flat_index in order]
    return [
        ChangedConfusion(
            labels[actual], labels[predicted], int(ours_KK[actual, predicted]), int(theirs_KK[actual, predicted])
        )
        for actual, predicted in pairs
        if change_KK[actual, predicted] > 0
    ]


def golden_parity(model_uri: str, device: str) -> float:
    """Return the largest difference of the golden input's probabilities between the network as it was trained, in float32 on the
    CPU, and as labeling runs it on `device`: in its inference form, and in the precision that the device prefers."""
    checkpoint = load_checkpoint(model_uri)
    frames_BTHWC = golden_frames(checkpoint.config)
    expected_BK = checkpoint.classify(frames_BTHWC)
    checkpoint.model.to(device)
    classify = Classifier(checkpoint, Execution(preferred_precision(device), is_compiled=False), batch_size=1)
    found_BK = classify(frames_BTHWC[0], torch.arange(frames_BTHWC.shape[1])[None])
    return float((found_BK - expected_BK).abs().max())
