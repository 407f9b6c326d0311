"""Exports of every format from settings, without the command."""

from pathlib import Path
from typing import Any, get_args

import pytest

from microaction.export.exporters import EXPORTERS
from microaction.export.labels import Event, LabelsError, read_labels
from microaction.export.run import exporter_of, run_export
from microaction.export.settings import ExportSettings
from microaction.storage import StorageError
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
FORMATS = tuple(EXPORTERS)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    one = [Event(1, SHAKING_LEGS, 1.0, 9.5, 0.4, 0.6), Event(2, NODDING, 3.0, 4.0, 0.9, 0.95)]
    videos = [
        Video("a/one.mp4", one, names={1: "Smith, Ann", 2: "Ben"}),
        Video("b/two.mp4", [Event(1, NODDING, 3.0, 4.0, 0.8, 0.9)], names={1: "Smith, Ann"}),
        Video("broken.mp4", failures=[(0.0, None, "decode_error", "no picture")], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name}) for name in HOSTILE_NAMES),
    ]
    folder = tmp_path_factory.mktemp("labels")
    return str(write_output(folder / "out", str(folder / "archive"), videos, videos_per_part=3))


def settings(out: str, dest: Path, **more: Any) -> ExportSettings:
    return ExportSettings(**{"out": out, "dest": str(dest), "format": "csv"} | more)


def test_the_setting_has_all_formats() -> None:
    assert get_args(ExportSettings.model_fields["format"].annotation) == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_all_events_into_its_folder(name: str, out: str, tmp_path: Path) -> None:
    dest = tmp_path / "parent/dest"
    summary = run_export(settings(out, dest, format=name))
    totals = read_labels(out).totals
    assert summary.written.num_events == totals["num_events"]
    assert summary.written.num_videos + summary.num_left_out == totals["num_videos"]
    assert summary.num_left_out in (0, 1), "the video that cannot be opened"
    assert summary.num_failures == 1
    assert summary.title == EXPORTERS[name].title
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]
    assert [path.name for path in dest.parent.iterdir()] == ["dest"], "no name of a video leads out of the folder"
    for location in summary.written.locations:
        assert Path(location).exists()
        assert Path(location).is_relative_to(dest)
    assert not list(dest.rglob("*.tmp"))


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_replaces_an_earlier_one(name: str, out: str, tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        run_export(settings(out, tmp_path, format=name))
        files.append(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert files[0] == files[1]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("wanted", "num_videos", "num_events"),
    [
        ({"video": ["a/one.mp4"]}, 1, 2),
        ({"video": ["?/*.mp4"], "person": ["Smith, Ann"]}, 2, 2),
        ({"video": ["a/*", "b/two.mp4"], "min_score": 0.8}, 2, 2),
        ({"video": ["a/one.mp4"], "person": ["2"], "min_score": 0.95}, 1, 0),
        ({"video": [HOSTILE_NAMES[4]]}, 1, 1),
    ],
)
def test_a_selection_is_exported_alone(
    name: str, wanted: dict[str, Any], num_videos: int, num_events: int, out: str, tmp_path: Path
) -> None:
    summary = run_export(settings(out, tmp_path, format=name, **wanted))
    assert (summary.written.num_videos, summary.written.num_events) == (num_videos, num_events)
    assert (summary.num_left_out, summary.num_failures) == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"video": ["a/one.mp4", "a/on.mp4"]}, r"no video 'a/on.mp4' in the labels of .*: is it 'a/one.mp4'"),
        ({"video": ["*.avi"]}, r"no video '\*.avi' in the labels of "),
        (
            {"person": ["Ann"]},
            r"no person 'Ann' in the labels of .*: there are .*, …; a number counts in every video",
        ),
        ({"person": ["1", "3"]}, r"no person '3' in the labels of "),
        (
            {"person": ["Ben"], "video": ["b/*"]},
            r"no person 'Ben' in the wanted videos of .*: there are 'Smith, Ann'; a number",
        ),
        (
            {"person": ["1"], "video": ["broken.mp4"]},
            r"no person '1' in the wanted videos of .*: there is nobody in them",
        ),
    ],
)
def test_a_name_that_matches_nothing_is_refused(wanted: dict[str, Any], message: str, out: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=f"^{message}"):
        run_export(settings(out, tmp_path / "dest", **wanted))
    assert not (tmp_path / "dest").exists()


def test_a_folder_that_cannot_be_written_is_refused_at_once(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen: list[int] = []
    with pytest.raises(StorageError, match="a part of its path is a file, not a folder"):
        run_export(settings(out, tmp_path / "file"), on_video=lambda done, total: seen.append(done))
    assert seen == []


def test_progress_counts_the_wanted_videos(out: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run_export(settings(out, tmp_path, video=["?/*.mp4"]), on_video=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_a_decimal_comma_is_for_csv(out: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decimal=comma is for format=csv; xlsx files have a form of their own"):
        settings(out, tmp_path, format="xlsx", decimal="comma")
    assert exporter_of(settings(out, tmp_path, decimal="comma")) != exporter_of(settings(out, tmp_path))
    run_export(settings(out, tmp_path, decimal="comma", video=["b/two.mp4"]))
    assert ";3,0;4,0;1,0;0,8;" in (tmp_path / "events.csv").read_text("utf-8-sig")
