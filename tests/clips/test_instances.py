"""Lists of instances: both vintages of MMA-52's files, and tables of spans."""

from pathlib import Path

import pandas as pd
import pytest

from microaction.clips.instances import AnnotatedVideo, Instance, read_instances
from microaction.clips.manifest import ManifestError
from microaction.evaluation.detection import TimedAction, truth_of
from microaction.taxonomy import ACTIONS
from tests.videos import write_video

HEADER = "id,video_id,start_frame,end_frame,class,total_frames"
ROWS = ("0,v0,23,71,9,168", "1,v0,68,125,21,168", "2,v1,0,29,5,290")


def write_csv(folder: Path, rows: list[str], header: str = HEADER) -> str:
    path = folder / "list.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def test_every_video_comes_once_with_its_instances(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path, [f"{row},{fps}" for row, fps in zip(ROWS, ("30.0", "30.0", "29"), strict=True)], f"{HEADER},fps"
    )
    first, second = read_instances(path, "videos")
    assert first == AnnotatedVideo(
        "v0.mp4", "videos/v0.mp4", (Instance(9, 0.7667, 2.3667), Instance(21, 2.2667, 4.1667)), 5.6
    )
    assert second == AnnotatedVideo("v1.mp4", "videos/v1.mp4", (Instance(5, 0.0, 1.0),), 10.0)
    assert truth_of([second]) == [TimedAction("v1.mp4", 5, 0.0, 1.0)]


def test_lists_without_rates_take_them_from_the_videos(tmp_path: Path) -> None:
    """As those of 2024 do, whose videos are named by subject."""
    write_video(tmp_path / "196_01_0005_L.mp4", num_frames=10, fps=25)
    (video,) = read_instances(write_csv(tmp_path, ["0,196_01_0005_L,5,10,3,10"]), str(tmp_path))
    assert (video.instances, video.duration_s, video.subject) == ((Instance(3, 0.2, 0.4),), 0.4, "196")


def test_spans_name_actions_and_people(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "video": ["a.mp4", "b.mp4", "a.mp4"],
            "start_s": [1.0, 0.0, 4.5],
            "end_s": [2.5, 3.0, 5.0],
            "action": [ACTIONS[7], ACTIONS[0], ACTIONS[51]],
            "person": [2, None, 1],
            "subject": ["s1", None, "s1"],
        }
    )
    table.to_parquet(tmp_path / "list.parquet")
    first, second = read_instances(str(tmp_path / "list.parquet"), "s3://bucket/videos")
    assert first.instances == (Instance(7, 1.0, 2.5, 2), Instance(51, 4.5, 5.0, 1))
    assert (first.uri, first.duration_s, first.subject) == ("s3://bucket/videos/a.mp4", None, "s1")
    assert (second.instances, second.subject) == ((Instance(0, 0.0, 3.0),), None)
    table.assign(action=[7, 0, 51]).to_parquet(tmp_path / "list.parquet")
    assert read_instances(str(tmp_path / "list.parquet"), "s3://bucket/videos") == [first, second]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "0,v0,71,71,9,168,30",
            r"line 2: it must start before it ends, at 0 s or later, not last from 2\.3667 to 2\.3667 s",
        ),
        ("0,v0,-1,71,9,168,30", "line 2: it must start before it ends"),
        ("0,v0,1,71,52,168,30", r"line 2: action 52 must be in 0\.\.51"),
        ("0,v0,1,71,9,168,0", r"line 2: fps \(0\) must be above 0"),
        ("0,v0,1,x,9,168,30", "line 2: invalid literal"),
        ("0,v0,1", "line 2: "),
        ("0,v0,1,9,9,168,30\n1,v0,1,9,9,170,30", r"line 3: v0\.mp4 lasts 5\.6667 s here, and 5\.6 s before"),
    ],
)
def test_a_row_that_is_no_instance_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_instances(write_csv(tmp_path, [row], f"{HEADER},fps"), "videos")


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no list of instances at .*missing"):
        read_instances(str(tmp_path / "missing.csv"), "videos")
    with pytest.raises(ManifestError, match="lacks the columns total_frames; a list of instances has video_id"):
        read_instances(write_csv(tmp_path, [], HEADER.removesuffix(",total_frames")), "videos")
    with pytest.raises(ManifestError, match="lists no instances"):
        read_instances(write_csv(tmp_path, []), "videos")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="is not a CSV file in UTF-8"):
        read_instances(str(tmp_path / "bad.csv"), "videos")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(ManifestError, match="is not a Parquet file"):
        read_instances(str(tmp_path / "bad.parquet"), "videos")
    spans = pd.DataFrame({"video": ["a.mp4"], "start_s": [0.0], "end_s": [1.0], "action": ["dancing"]})
    spans.to_parquet(tmp_path / "spans.parquet")
    with pytest.raises(ManifestError, match="row 1: there is no action 'dancing'"):
        read_instances(str(tmp_path / "spans.parquet"), "videos")
