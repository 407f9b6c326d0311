"""MMA-52's formats, read back by the project's own reader."""

import csv
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.clips.instances import read_instances
from microaction.evaluation.detection import TimedAction
from microaction.evaluation.detection_submission import detection_csv
from microaction.export.cells import FORMULA_MARKS
from microaction.export.labels import Event, Labels, Selection, read_labels
from microaction.export.mma52 import COLUMNS, frame_span, write_mma52
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
FPS, DURATION_S = 25.0, 60.0  # of every video of an output


def labels_of(folder: Path, *videos: Video) -> Labels:
    return read_labels(str(write_output(folder / "out", "/archive", videos)))


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    long = [Event(1, SHAKING_LEGS, 0.0, 60.0, 0.4, 0.6), Event(2, NODDING, 3.01, 4.03, 0.9, 0.95)]
    return labels_of(
        tmp_path,
        Video("a/one.mp4", long),
        Video("b/one.mp4", [Event(1, NODDING, 59.9, 60.0, 1 / 3, 0.5)]),
        Video("c/three.mp4", [Event(1, NODDING, 1.0, 1.001, 0.5, 0.5)]),
        Video("silent.mp4"),
        Video("broken.mp4", [], failures=[(0.0, None, "decode_error", "no picture")], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)]) for name in HOSTILE_NAMES),
    )


def prediction_of(folder: Path) -> str:
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.testzip() is None
        return archive.read("prediction.csv").decode()


def test_annotations_are_read_back_within_a_frame(labels: Labels, tmp_path: Path) -> None:
    written = write_mma52(labels, labels.each_video(), str(tmp_path / "mma52"))
    videos = {video.uri: video for video in labels.each_video() if video.events}
    assert written.num_videos == len(videos) + 1, "the video without events has no row, the broken one is left out"
    found = {video.uri: video for video in read_instances(str(tmp_path / "mma52/annotations.csv"), "/archive")}
    assert found.keys() == {uri if uri.endswith(".mp4") else f"{uri}.mp4" for uri in videos}
    for uri, video in videos.items():
        assert found[uri].duration_s == DURATION_S
        instances = found[uri].instances
        assert [instance.action_id for instance in instances] == [event.action_id for event in video.events]
        for instance, event in zip(instances, video.events, strict=True):
            assert instance.start_s == pytest.approx(event.start_s, abs=1 / FPS)
            assert instance.end_s == pytest.approx(event.end_s, abs=1 / FPS + 1e-9)
    assert written.num_events == sum(len(video.instances) for video in found.values())


def test_the_annotation_file_has_the_datasets_form(labels: Labels, tmp_path: Path) -> None:
    write_mma52(labels, labels.each_video(Selection(["a/one.mp4", "c/three.mp4"])), str(tmp_path))
    lines = (tmp_path / "annotations.csv").read_text().splitlines()
    assert lines == [
        ",".join(COLUMNS),
        "0,a/one,0,1499,24,1500,25.0",
        "1,a/one,75,101,9,1500,25.0",
        "2,c/three,25,26,9,1500,25.0",
    ]


@given(
    st.floats(0, 100), st.floats(1e-6, 100), st.floats(1, 120), st.integers(2, 20_000)
)  # start and length in s, frames per second, frames
def test_spans_lie_inside_the_video(start_s: float, length_s: float, fps: float, num_frames: int) -> None:
    start, end = frame_span(Event(1, 0, start_s, start_s + length_s, 0.5, 0.5), fps, num_frames)
    assert 0 <= start < end <= num_frames - 1
    if start_s + length_s <= (num_frames - 2) / fps:
        assert start / fps == pytest.approx(start_s, abs=1 / fps)
        assert end / fps == pytest.approx(start_s + length_s, abs=1 / fps + 1e-9)


def test_a_submission_is_the_evaluations_own(tmp_path: Path) -> None:
    events = [Event(1, NODDING, 0.125, 1.5, 1 / 3, 0.5), Event(1, SHAKING_LEGS, 2.0, 3.000001, 0.9, 0.9)]
    labels = labels_of(tmp_path, Video("test0000.mp4", events), Video("test0001.mp4", events[:1]))
    write_mma52(labels, labels.each_video(), str(tmp_path))
    detections = [
        TimedAction(video.name, event.action_id, event.start_s, event.end_s, event.probability)
        for video in labels.each_video()
        for event in video.events
    ]
    assert prediction_of(tmp_path) == detection_csv(detections)


def test_videos_of_one_file_name_are_told_apart(labels: Labels, tmp_path: Path) -> None:
    write_mma52(labels, labels.each_video(Selection(["?/*"])), str(tmp_path))
    rows = list(csv.DictReader(io.StringIO(prediction_of(tmp_path))))
    assert [row["video_id"] for row in rows] == ["a/one", "a/one", "b/one", "three"]


def test_equal_labels_make_equal_files(labels: Labels, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_mma52(labels, labels.each_video(), str(tmp_path / name))
    for name in ("annotations.csv", "submission.zip"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_video_is_a_formula(labels: Labels, tmp_path: Path) -> None:
    write_mma52(labels, labels.each_video(), str(tmp_path))
    for text in ((tmp_path / "annotations.csv").read_bytes().decode(), prediction_of(tmp_path)):
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(rows) == labels.totals["num_events"]
        assert not [row for row in rows if row["video_id"].strip().startswith(tuple(FORMULA_MARKS))]
