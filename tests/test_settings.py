"""What the settings of all rooms share; each room's own settings are tested with it."""

import pytest
from pydantic import ValidationError

from microaction.labeling.settings import LabelSettings
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.settings import SUBMITTED_JOB_VARIABLE, digest_of


def label(**changes: object) -> LabelSettings:
    return LabelSettings.model_validate({"archive": "in", "out": "out", "model": "m"} | changes)


def test_a_crop_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"crop \(224\) must be at most short_side \(128\)"):
        Preprocessing(short_side=128)


def test_a_digest_depends_on_the_named_settings_only() -> None:
    include = {"window_s", "stride_s"}
    assert digest_of(label(), include) == digest_of(label(out="elsewhere"), include)
    assert digest_of(label(), include) != digest_of(label(stride_s=0.5), include)


def test_the_default_model_is_the_papers() -> None:
    assert ManetConfig() == ManetConfig(num_classes=52, num_frames=8, width=64, depths=(3, 4, 6, 3))


def test_a_submitted_job_refuses_relative_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUBMITTED_JOB_VARIABLE, "{}")
    with pytest.raises(
        ValidationError, match=r"'in' is a relative path.*absolute path that every node can see, or a URI"
    ):
        label(out="/out", model="s3://bucket/m")
    assert label(archive="s3://b/in", out="/out", model="/m").archive == "s3://b/in"


def test_the_environment_does_not_reach_settings_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only commands read it (`tests/cli/test_settings.py`)."""
    monkeypatch.setenv("WINDOW_S", "9")
    monkeypatch.setenv("MICROACTION_STRIDE_S", "0.5")
    assert (label().window_s, label().stride_s) == (2.0, 1.0)
