import pytest
from pydantic import ValidationError

from microaction.labeling.settings import LabelSettings


def label(**changes: object) -> LabelSettings:
    return LabelSettings.model_validate({"archive": "in", "out": "out", "model": "m"} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows_s": 2.0}, "windows_s"),
        ({"stride_s": 3.0}, r"stride_s \(3.0\) must be at most window_s \(2.0\).*stride_s=2.0"),
        ({"chunk_s": 0.5}, r"chunk_s \(0.5\) must be at least stride_s \(1.0\)"),
        ({"continue_threshold": 0.6}, r"continue_threshold \(0.6\) must be at most start_threshold \(0.5\)"),
        ({"max_labelers": 1, "min_labelers": 2}, r"max_labelers \(1\) must be at least min_labelers \(2\)"),
        ({"base_run": "old"}, "relabel=uncertain and base_run, .* belong together"),
        ({"relabel": "uncertain"}, "relabel=uncertain and base_run, .* belong together"),
        ({"relabel": "uncertain", "base_run": "out"}, "base_run and out are both .*/out; a run with another model"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        label(**changes)


def test_the_continue_threshold_follows_the_start_threshold() -> None:
    assert label(start_threshold=0.4).effective_continue_threshold == pytest.approx(0.28)
    assert label(start_threshold=0.4, continue_threshold=0.1).effective_continue_threshold == 0.1
