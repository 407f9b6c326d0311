"""The demo with PCAN: skeletons of the clips and of the interviews, three training runs, and labels."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from microaction.cli.demo import COPY_NAME
from microaction.models import load_checkpoint
from tests.conftest import CommandResult


def test_pcan_without_training_is_refused(job: Callable[..., CommandResult], tmp_path: Path) -> None:
    result = job("demo", "--network", "pcan", "--out", str(tmp_path / "demo"))
    assert result.returncode == 2
    assert "network=pcan belongs to train: without it the demo labels with the shipped detector" in result.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_the_demo_trains_pcan_and_labels_with_it(job: Callable[..., CommandResult], tmp_path: Path) -> None:
    clips = ("--num-train-clips", "16", "--num-val-clips", "8", "--epochs", "1")
    result = job(
        "demo",
        *("--train", "--network", "pcan", "--out", str(tmp_path)),
        *clips,
        *("--num-interviews", "1", "--interview-s", "8"),
    )
    assert result.returncode == 0, result.stderr
    recipe = load_checkpoint(str(tmp_path / "pcan" / "best")).config.recipe
    assert [Path(recipe[name]).parts[-2] for name in ("init", "init_pose")] == ["pcan-rgb", "pcan-pose"]
    labels = tmp_path / "labels-pcan"
    videos = pd.read_parquet(labels / "videos")
    covered_s = dict(zip(videos["video"].map(lambda video: Path(video).name), videos["covered_s"], strict=True))
    assert covered_s["interview_1.mp4"] == covered_s[COPY_NAME] == 8.0
    windows = pd.read_parquet(labels / "windows")
    assert len(windows) == 2 * 7
    assert (labels / "report" / "index.html").exists()
    assert (tmp_path / "evaluation-pcan" / "metrics.json").exists()
    for part in ("PCAN's RGB path alone: ", "PCAN's pose path alone: ", "actions in the interviews were found"):
        assert part in result.stderr
