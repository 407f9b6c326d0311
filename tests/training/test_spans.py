"""A classifier is trained, and judged, on the spans of videos that lists of instances name."""

import json
from pathlib import Path

import pandas as pd
import pytest

from microaction.errors import UsageError
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.training.run import run_training
from tests.training.runs import settings
from tests.videos import write_video

HEADER = "id,video_id,start_frame,end_frame,class,total_frames,fps"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos, and MMA-52's lists of them; one instance of each begins beyond the end of its video."""
    for number, split in enumerate(("train", "val")):
        write_video(tmp_path / f"{split}0.mp4", num_frames=90)
        spans = [(10 * i, 10 * i + 8 + i, (i + number) % 4) for i in range(8)]
        spans += [(40, 50, 9), (40, 50, 11), (300, 310, 5)]
        rows = [f"{i},{split}0,{start},{end},{action},90,30.0" for i, (start, end, action) in enumerate(spans)]
        (tmp_path / f"{split}.csv").write_text("\n".join([HEADER, *rows, ""]))
    return tmp_path


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_annotations_of_mma52_train_a_classifier(videos: Path) -> None:
    lists = {f"{split}_list": str(videos / f"{split}.csv") for split in ("train", "val")}
    of = settings(
        videos, videos / "runs", "spans", **lists, max_unreadable_fraction=0.1, recipe={"epochs": 1, "batch_size": 4}
    )
    result = run_training(of)
    unreadable = json.loads((videos / "runs/spans/unreadable.json").read_text())
    assert list(unreadable) == [f"{videos}/{split}0.mp4#t=10,10.3333" for split in ("train", "val")]
    assert all("begins beyond the end of the video, at 3.000 s" in reason for reason in unreadable.values())
    clips = pd.read_parquet(f"{result.checkpoint}/clips.parquet")
    assert clips["is_readable"].tolist() == ([True] * 10 + [False]) * 2
    predictions = pd.read_parquet(f"{result.checkpoint}/validation.parquet")
    names = ["val0.mp4#t=0,0.2667", "val0.mp4#t=1.3333,1.6667&action=9", "val0.mp4#t=1.3333,1.6667&action=11"]
    assert predictions["clip"].tolist() == clips[clips["split"] == "validation"]["name"].tolist()[:10]
    assert set(names) < set(predictions["clip"])

    evaluate = EvaluateSettings(
        model=result.checkpoint,
        clips_list=str(videos / "val.csv"),
        videos=str(videos),
        out=str(videos / "report"),
        max_unreadable_fraction=0.1,
    )
    run_evaluation(evaluate)
    assert pd.read_parquet(videos / "report/predictions.parquet")["clip"].tolist() == predictions["clip"].tolist()
    assert list(json.loads((videos / "report/unreadable.json").read_text())) == [f"{videos}/val0.mp4#t=10,10.3333"]
    with pytest.raises(UsageError, match="lists spans of videos, but a submission is of MA-52's clips"):
        run_evaluation(evaluate.model_copy(update={"submission": str(videos / "prediction.zip")}))
