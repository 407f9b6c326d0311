import pytest
from pydantic import ValidationError

from microaction.cli.app import parse_settings
from microaction.labeling.settings import LabelSettings
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.settings import SUBMITTED_JOB_VARIABLE, digest_of


def label(**changes: object) -> LabelSettings:
    return LabelSettings.model_validate({"archive": "in", "out": "out", "model": "m"} | changes)


def test_a_stride_beyond_the_window_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValidationError, match=r"stride_s \(3.0\) must be at most window_s \(2.0\).*stride_s=2.0"):
        label(stride_s=3.0)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="windows_s"):
        label(windows_s=2.0)


def test_a_crop_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"crop \(224\) must be at most short_side \(128\)"):
        Preprocessing(short_side=128)


def test_the_digest_changes_with_the_named_settings_only() -> None:
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


def test_the_environment_reaches_commands_and_not_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDOW_S", "9")
    monkeypatch.setenv("MICROACTION_STRIDE_S", "0.5")
    assert (label().window_s, label().stride_s) == (2.0, 1.0)
    parsed = parse_settings(LabelSettings, ["/in", "/out", "--model", "/m"])
    assert (parsed.window_s, parsed.stride_s) == (2.0, 0.5)
