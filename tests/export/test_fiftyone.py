"""A dataset of FiftyOne, read by the rules of its importer."""

import json
import posixpath
from pathlib import Path
from typing import Any

import pytest

from microaction.export.fiftyone import write_fiftyone
from microaction.export.labels import Event, Labels, read_labels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
EVENT = Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)
ODD_NAMES = (
    "a/one.mp4",
    "a/one.avi",
    "a/one",
    "a/one.mp4.mov",
    "2024.01.02",
    "2024.01.02.mp4",
    ".hidden",
    "b.c/d",
    "e.",
)


def labels_of(folder: Path, archive: str = "/archive") -> Labels:
    videos = [
        Video("one.mp4", [Event(2, SHAKING_LEGS, 1.0, 9.5, 0.4, 0.6), EVENT], names={1: "Ann"}),
        Video("two.mp4"),
        Video("broken.mp4", failures=[(0.0, None, "decode_error", "no picture")], duration_s=None),
        *(Video(name, [EVENT]) for name in (*HOSTILE_NAMES, *ODD_NAMES)),
    ]
    return read_labels(str(write_output(folder / "out", archive, videos)))


def load(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the labels by the location of their video, as FiftyOne's importer finds it."""
    data = json.loads((folder / "data.json").read_text())
    location_of = {
        posixpath.normpath(posixpath.splitext(key)[0]): posixpath.normpath(posixpath.join(folder, path))
        for key, path in data.items()
    }
    assert len(location_of) == len(data)
    labels = json.loads((folder / "labels.json").read_text())["labels"]
    assert not any(posixpath.isabs(key) for key in labels), "the importer would take it for the location"
    return {location_of[key]: value for key, value in labels.items()}


def test_detections_are_read_back_equal(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    written = write_fiftyone(labels, labels.each_video(), str(tmp_path / "dataset"))
    loaded = load(tmp_path / "dataset")
    videos = {video.uri: video for video in labels.each_video() if video.name != "broken.mp4"}
    assert loaded.keys() == videos.keys()
    assert (written.num_videos, written.num_events) == (len(videos), sum(len(each) for each in loaded.values()))
    for uri, video in videos.items():
        found = [
            Event(
                detection["attributes"]["person"],
                detection["label"],
                detection["timestamps"][0],
                detection["timestamps"][1],
                detection["confidence"],
                detection["attributes"]["peak_probability"],
            )
            for detection in loaded[uri]
        ]
        assert found == list(video.events)
    assert json.loads((tmp_path / "dataset/labels.json").read_text())["classes"] == list(ACTIONS)


def test_a_detection_says_whose_it_is(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    write_fiftyone(labels, labels.each_video(), str(tmp_path))
    first, second = load(tmp_path)["/archive/one.mp4"]
    assert (first["attributes"]["person_name"], second["attributes"]["person_name"]) == ("Ann", "person 2")
    assert second["attributes"]["body_part"] == BODY_PARTS[BODY_PART_OF[SHAKING_LEGS]]
    assert load(tmp_path)["/archive/two.mp4"] == [], "a video without events is a sample too"


def test_videos_are_known_by_their_path_without_suffix(tmp_path: Path) -> None:
    """So that `data_path` may be any folder with a copy of the archive."""
    labels = labels_of(tmp_path)
    write_fiftyone(labels, labels.each_video(), str(tmp_path))
    keys = json.loads((tmp_path / "labels.json").read_text())["labels"].keys()
    assert {"one", "2024.01", "b.c/d"} <= keys
    assert len({key for key in keys if key.startswith("a/one")}) == 4, "of one name and four suffixes"


def test_videos_in_a_store_are_not_linked(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, "s3://archive")
    written = write_fiftyone(labels, labels.each_video(), str(tmp_path / "dataset"))
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["labels.json"]
    assert written.locations == (str(tmp_path / "dataset/labels.json"),)


def test_an_export_of_nothing_is_valid(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    write_fiftyone(labels, [labels.video("broken.mp4")], str(tmp_path))
    assert load(tmp_path) == {}


def test_times_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """JSON has no NaN; FiftyOne's parser would take it."""
    labels = labels_of(tmp_path)
    video = labels.video("two.mp4")
    broken = type(video)(**{**vars(video), "events": (EVENT._replace(start_s=float("nan")),)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_fiftyone(labels, [broken], str(tmp_path / "dataset"))
    assert list((tmp_path / "dataset").iterdir()) == []
