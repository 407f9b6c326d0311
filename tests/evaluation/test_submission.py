"""The challenge's submission file."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from microaction.clips.manifest import read_list
from microaction.evaluation.submission import prediction_csv, write_submission
from microaction.taxonomy import BODY_PART_OF


def test_a_submission_is_a_csv_in_the_order_of_the_list(tmp_path: Path, shared: Path) -> None:
    clips = read_list(str(shared / "data/ma52/test_list_videos.txt"), "test", 52)
    scores = np.random.default_rng(0).dirichlet(np.ones(52), len(clips))
    names = [clip.name for clip in clips]
    uri = str(tmp_path / "submission.zip")
    write_submission(uri, names, scores)
    with zipfile.ZipFile(uri) as archive:
        assert archive.namelist() == ["prediction.csv"]
        text = archive.read("prediction.csv").decode()
    assert text.splitlines()[0] == (
        "vid,action_pred_1,action_pred_2,action_pred_3,action_pred_4,action_pred_5,"
        "body_pred_1,body_pred_2,body_pred_3,body_pred_4,body_pred_5"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["vid"] for row in rows] == names
    for row, scores_K in zip(rows, scores, strict=True):
        actions = [int(row[f"action_pred_{rank}"]) for rank in range(1, 6)]
        assert scores_K[actions].tolist() == sorted(scores_K, reverse=True)[:5]
        assert [int(row[f"body_pred_{rank}"]) for rank in range(1, 6)] == [BODY_PART_OF[action] for action in actions]
    before = Path(uri).read_bytes()
    write_submission(uri, names, scores)
    assert Path(uri).read_bytes() == before


def test_clips_are_named_by_file_name_with_extension() -> None:
    rows = prediction_csv(["a/b.mp4", "c"], np.eye(52)[:2]).splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["b.mp4", "c.mp4"]


def test_an_invalid_submission_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have the same file name"):
        prediction_csv(["a/b.mp4", "c/b.mp4"], np.eye(52)[:2])
    with pytest.raises(ValueError, match="a clip has no scores"):
        prediction_csv(["a.mp4"], np.full((1, 52), np.nan))
    with pytest.raises(ValueError, match=r"must be a file whose name ends in \.zip"):
        write_submission(str(tmp_path / "s.csv"), ["a.mp4"], np.eye(52)[:1])
