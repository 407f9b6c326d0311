"""Labels read: whole tables, or one video after the other."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import microaction
from microaction.export.labels import Event, LabelsError, Selection, VideoLabels, read_labels
from microaction.export.timeline_plot import timeline_figure
from tests.export.outputs import HOSTILE_NAMES, STEP_S, Video, write_output

ARCHIVE = "/archive"
NODDING, SHAKING_LEGS = 9, 24


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    activity = np.arange(4 * 52, dtype=np.uint8).reshape(4, 52)
    videos = [
        Video(
            "a/one.mp4",
            [Event(2, NODDING, 3.0, 4.0, 0.9, 0.95), Event(1, SHAKING_LEGS, 1.0, 9.5, 0.4, 0.6)],
            names={1: "Ann"},
            activity={2: activity},
        ),
        Video("b.mp4", [], failures=[(0.0, None, "decode_error", "no picture")], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)]) for name in HOSTILE_NAMES),
    ]
    return write_output(tmp_path_factory.mktemp("labels") / "out", ARCHIVE, videos, videos_per_part=3)


def test_every_video_comes_once_with_its_labels(out: Path) -> None:
    labels = read_labels(str(out))
    found = {video.name: video for video in labels.each_video()}
    assert set(found) == {"a/one.mp4", "b.mp4", *HOSTILE_NAMES}
    one = found["a/one.mp4"]
    first, second = one.events
    assert first == pytest.approx((1, SHAKING_LEGS, 1.0, 9.5, 0.4, 0.6))
    assert second == pytest.approx((2, NODDING, 3.0, 4.0, 0.9, 0.95))
    assert (one.persons, one.person_name(1), one.person_name(2)) == ((1, 2), "Ann", "person 2")
    assert found["b.mp4"].failures[0]["reason"] == "no picture"
    assert all(len(found[name].events) == 1 for name in HOSTILE_NAMES)


def test_a_selection_leaves_out_what_is_not_wanted(out: Path) -> None:
    labels = read_labels(str(out))

    def found(**wanted: object) -> dict[str, int]:
        return {video.name: len(video.events) for video in labels.each_video(Selection(**wanted))}  # type: ignore[arg-type]

    assert found(videos=["a/one.mp4"]) == {"a/one.mp4": 2}
    assert found(videos=[f"{ARCHIVE}/a/*"], persons=["Ann"]) == {"a/one.mp4": 1}
    assert found(videos=["a/one.mp4"], persons=["2"], min_score=0.95) == {"a/one.mp4": 0}
    assert found(videos=["=cmd*"]) == {HOSTILE_NAMES[4]: 1}
    with pytest.raises(LabelsError, match=r"no video 'on.mp4' .*is it .*'a/one.mp4'"):
        found(videos=["on.mp4"])


def test_failures_of_others_are_left_out() -> None:
    rows = tuple({"person": person, "reason": ""} for person in (None, 1, 2))
    people = tuple({"person": person, "name": None} for person in (1, 2))
    video = VideoLabels("/a/b.mp4", "b.mp4", {}, people, (), rows, "")
    assert [row["person"] for row in Selection(persons=["1"]).of(video).failures] == [None, 1]
    assert Selection().of(video).failures == rows


def test_tables_are_whole_or_of_one_video(out: Path) -> None:
    labels = microaction.read_labels(str(out))
    assert len(labels.events) == 2 + len(HOSTILE_NAMES)
    assert labels.pandas("events", "a/one.mp4")["action"].tolist() == ["nodding", "shaking legs"]
    assert labels.arrow("videos", columns=["video"]).num_columns == 1
    assert len(labels.windows) == 0
    with pytest.raises(LabelsError, match="no table 'event'"):
        labels.arrow("event")
    with pytest.raises(LabelsError, match="no video 'c'"):
        labels.video("c")


def test_activity_comes_in_order(out: Path) -> None:
    labels = read_labels(str(out))
    ((start_s, step_s, activity),) = labels.activity_of(labels.video("a/one.mp4"), 2)
    assert (start_s, step_s, activity.dtype.name) == (0.0, STEP_S, "uint8")
    np.testing.assert_array_equal(activity, np.arange(4 * 52, dtype=np.uint8).reshape(4, 52))
    assert list(labels.activity_of(labels.video("a/one.mp4"), 1)) == []


def test_an_output_may_be_moved(out: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(out, tmp_path / "moved", symlinks=True))
    assert len(read_labels(str(moved)).events) == len(read_labels(str(out)).events)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="has no labels: microaction label"):
        read_labels(str(tmp_path))


def test_a_timeline_has_a_lane_for_every_person_and_action(out: Path) -> None:
    labels = read_labels(str(out))
    (axes,) = labels.plot_timeline("a/one.mp4").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["person 2: nodding", "Ann: shaking legs"]
    assert axes.get_xlim() == (0, 60)
    (alone,) = labels.plot_timeline("a/one.mp4", person=2).axes
    assert [text.get_text() for text in alone.get_yticklabels()] == ["nodding"]
    two = labels.video("a/one.mp4")
    named = replace(two, people=tuple(dict(row, name=r"$\foo$ $a$") for row in two.people))
    timeline_figure(named).savefig("/dev/null", format="png", dpi=20)  # no formulas in names
    for name in HOSTILE_NAMES:
        labels.plot_timeline(name).savefig("/dev/null", format="png", dpi=20)
