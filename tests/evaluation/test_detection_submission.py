"""The submission file of the challenge's detection track."""

import zipfile
from pathlib import Path

import pytest

from microaction.evaluation.detection import TimedAction
from microaction.evaluation.detection_submission import detection_csv, write_detection_submission

DETECTIONS = [TimedAction("test/test0000.mp4", 5, 0.5, 2.25, 0.75), TimedAction("test0001", 51, 0, 3.0, 1)]
TEXT = ",video_id,t_start,t_end,class,score\n0,test0000,0.5,2.25,5,0.75\n1,test0001,0.0,3.0,51,1.0\n"


def test_a_submission_is_a_csv_in_a_zip_without_folders(tmp_path: Path) -> None:
    uri = tmp_path / "prediction.zip"
    write_detection_submission(str(uri), DETECTIONS)
    with zipfile.ZipFile(uri) as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv").decode() == TEXT
    before = uri.read_bytes()
    write_detection_submission(str(uri), DETECTIONS)
    assert uri.read_bytes() == before, "equal predictions make equal files"


def test_numbers_keep_all_their_digits() -> None:
    row = detection_csv([TimedAction("a", 0, 1 / 3, 2 / 3, 1e-7)]).splitlines()[1].split(",")
    assert [float(value) for value in row[2:]] == [1 / 3, 2 / 3, 0, 1e-7]


@pytest.mark.parametrize(
    ("detections", "reason"),
    [
        ([TimedAction("a", 0, 0.0, 1.0, 1.5)], r"the score must be in \[0, 1\]"),
        ([TimedAction("a", 0, 0.0, 1.0, float("nan"))], r"the score must be in \[0, 1\]"),
        ([TimedAction("a", 52, 0.0, 1.0, 0.5)], r"the action must be in 0\.\.51"),
        ([TimedAction("a", 0, 0.0, float("inf"), 0.5)], "times must be finite"),
        ([TimedAction("x/a.mp4", 0, 0.0, 1.0), TimedAction("y/a.mp4", 0, 0.0, 1.0)], "have the same file name"),
    ],
)
def test_an_invalid_submission_raises_an_error(detections: list[TimedAction], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        detection_csv(detections)


def test_a_submission_must_be_a_zip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a file whose name ends in \.zip"):
        write_detection_submission(str(tmp_path / "prediction.csv"), DETECTIONS)
