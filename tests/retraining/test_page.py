"""The page of a decision, from a comparison alone."""

from pathlib import Path

import numpy as np
import pytest

from microaction.registry import Version
from microaction.retraining.attempt import Attempt
from microaction.retraining.data import DataDelta
from microaction.retraining.detection import compared_detectors, judge_detectors
from microaction.retraining.gates import Comparison, Verdict, judge
from microaction.retraining.page import ComparedModels, compared_classifiers, write_page
from microaction.retraining.settings import GatesConfig, RetrainSettings
from microaction.taxonomy import ACTIONS
from tests.pages.reading import Page, assert_harmless
from tests.retraining.test_detection import comparison_of
from tests.retraining.test_gates import TARGET_N, scores

GATES = GatesConfig(min_support=20)


def page_of(folder: Path, compared: ComparedModels, verdicts: list[Verdict]) -> Page:
    settings = RetrainSettings(registry=str(folder), dataset=str(folder), work=str(folder), gates=GATES)
    fields = {"created_at": "", "digest": "", "files": {}, "data": {}, "lists": {}, "metrics": {}, "code": {}}
    production = Version.model_validate({"name": "manet-3", "temperature": 1.0, **fields})
    write_page(Attempt(settings, production, DataDelta(200, 13), str(folder)), compared, verdicts)
    (path,) = folder.glob("*.html")
    return assert_harmless(path.read_bytes())


@pytest.mark.parametrize("is_worse", [False, True])
def test_a_page_says_why_a_classifier_was_chosen_or_not(tmp_path: Path, is_worse: bool) -> None:
    good_NK, bad_NK = scores(TARGET_N, wrong=0.1), scores(TARGET_N, wrong=0.4)
    models = (bad_NK, good_NK) if is_worse else (good_NK, bad_NK)
    comparison = Comparison(*models, TARGET_N, num_left_out=2)
    verdicts = judge(comparison, ACTIONS, 0.01, GATES)
    page = page_of(tmp_path, compared_classifiers(comparison), verdicts)
    failed = [verdict for verdict in verdicts if not verdict.is_passed]
    assert bool(failed) == is_worse
    assert ("Rejected" if is_worse else "Promoted") in page.words
    assert "from the weights of manet-3 with 200 new and 13 corrected clips" in page.words
    assert "2 more could not be read." in page.words
    assert "Gates gate candidate production must be verdict held-out clips 400 at least 50 passed" in page.words
    assert len([row for row in page.all("tr") if row == {"class": "bad mark"}]) == len(failed)
    accuracy = [float(np.mean(each_NK.argmax(axis=1) == TARGET_N)) for each_NK in models]
    assert f"action_top1 {accuracy[0]:.4f} {accuracy[1]:.4f} {accuracy[0] - accuracy[1]:+.4f}" in page.words
    assert "Most changed confusions" in page.words


def test_a_page_says_why_a_detector_was_chosen(tmp_path: Path) -> None:
    comparison = comparison_of(0.9, 0.8)
    page = page_of(tmp_path, compared_detectors(comparison), judge_detectors(comparison, 0.0, GATES))
    assert "Promoted" in page.words
    assert "on the same 120 instances of people whom neither was trained on" in page.words
    assert "Average precision of every action" in page.words
    assert "Most changed confusions" not in page.words
