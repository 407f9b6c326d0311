"""Measuring tables of detections: which tables are read, which videos count, and the command itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from pydantic import ValidationError

from microaction.evaluation.detection import TimedAction
from microaction.evaluation.detection_run import run_detection_evaluation
from microaction.evaluation.detection_table import DetectionTableError, read_detections
from microaction.evaluation.seen_people import MMA52_NOTE
from microaction.evaluation.settings import EvaluateSettings
from microaction.schema import EVENTS
from microaction.taxonomy import ACTIONS
from tests.conftest import CommandResult

COLUMNS = ["video", "action_id", "start_s", "end_s", "score"]
TRUTH = [("v0.mp4", 9, 1.0, 2.0), ("v0.mp4", 21, 3.0, 4.5), ("v1.mp4", 5, 0.0, 1.0)]
FOUND = [("v0.mp4", 9, 1.0, 2.0, 0.9), ("v0.mp4", 21, 3.0, 4.5, 0.8), ("v1.mp4", 5, 4.0, 5.0, 0.7)]


def write_table(path: Path, rows: Sequence[tuple[object, ...]], columns: list[str] = COLUMNS) -> str:
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> EvaluateSettings:
    return EvaluateSettings(
        task="detection",
        detections=write_table(tmp_path / "found.parquet", FOUND),
        clips_list=write_table(tmp_path / "list.parquet", TRUTH, ["video", "action", "start_s", "end_s"]),
        videos=str(tmp_path / "videos"),
        out=str(tmp_path / "out"),
    )


def test_a_table_is_measured_without_ray(settings: EvaluateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: pytest.fail("Ray is not needed"))
    monkeypatch.setattr(ray, "init", lambda *args, **options: pytest.fail("Ray is not needed"))
    result = run_detection_evaluation(settings)
    assert result.metrics["map_challenge_of_true_classes"] == pytest.approx(2 / 3)
    assert result.metrics["event_f1@0.5"] == pytest.approx(2 / 3)
    assert result.metrics["num_true"] == 3
    assert result.notices == ("it has no calibration, so that every detection counts as an event",)
    assert result.seen == "unknown: the weights do not say whom they were trained on"
    saved = json.loads(Path(settings.out, "metrics.json").read_text())
    assert (saved["num_videos"], saved["hours"], saved["seen_people"]) == (2, None, result.seen)


def test_videos_are_the_same_by_name_with_or_without_suffix(settings: EvaluateSettings, tmp_path: Path) -> None:
    expected = run_detection_evaluation(settings).metrics
    for rename in (
        lambda name: str(tmp_path / "videos" / name),
        lambda name: name.removesuffix(".mp4"),
        lambda name: f"./{name}",
    ):
        rows = [(rename(video), *rest) for video, *rest in FOUND]
        rows.append(("elsewhere/v0.mp4", 9, 0.0, 1.0, 0.99))
        write_table(tmp_path / "found.parquet", rows)
        result = run_detection_evaluation(settings)
        assert result.metrics == expected
        assert result.notices[1].startswith(
            "1 of 4 detections are in videos that are not on the list, such as elsewhere/v0.mp4"
        )
    write_table(tmp_path / "found.parquet", [("other.mp4", *row[1:]) for row in FOUND])
    with pytest.raises(
        DetectionTableError, match=r"no video that it names, such as other\.mp4, is on the list, which has v0"
    ):
        run_detection_evaluation(settings)


def test_the_events_that_label_writes_are_detections(tmp_path: Path) -> None:
    row: dict[str, str | float] = {
        "video": "/archive/a.mp4",
        "action": ACTIONS[9],
        "action_id": 9,
        "start_s": 1.0,
        "end_s": 2.5,
        "probability": 0.75,
    }
    fillers = {pa.int32(): 0, pa.float32(): 0.0}
    rest = {field.name: [fillers.get(field.type, "x")] for field in EVENTS if field.name not in row}
    table = pa.table({name: rest.get(name) or [row[name]] for name in EVENTS.names}).cast(EVENTS)
    (tmp_path / "events").mkdir()
    for name in ("a", "b"):
        pq.write_table(table, tmp_path / "events" / f"{name}.parquet")
    (tmp_path / "linked").symlink_to("events")  # as `label` publishes its tables
    assert read_detections(str(tmp_path / "linked")) == [TimedAction("/archive/a.mp4", 9, 1.0, 2.5, 0.75)] * 2


def test_actions_are_names_or_numbers(tmp_path: Path) -> None:
    for column, actions in (("action", ACTIONS[:2]), ("action", (0, 1)), ("action_id", (0, 1))):
        path = write_table(
            tmp_path / "t.parquet",
            [("v", action, 0, 1, 0.5) for action in actions],
            ["video", column, "start_s", "end_s", "score"],
        )
        assert read_detections(path) == [TimedAction("v", 0, 0.0, 1.0, 0.5), TimedAction("v", 1, 0.0, 1.0, 0.5)]
    assert read_detections(write_table(tmp_path / "t.parquet", [])) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"video": None}, "row 2: video is empty"),
        ({"video": 7}, "the column video must hold names of files"),
        ({"action_id": 52}, r"row 2: action \(52\) must be a name or in 0\.\.51"),
        ({"action_id": "noding"}, "row 2: there is no action 'noding'"),
        ({"start_s": 3.0}, r"row 2: it must end at or after its start; it is \[3, 2\) s with score 0\.5"),
        ({"start_s": "x"}, "the column start_s must hold numbers"),
        ({"score": 1.5}, r"row 2: score must be in \[0, 1\]; it is \[1, 2\) s with score 1\.5"),
    ],
)
def test_a_row_that_is_no_detection_is_an_error(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    good = {"video": "v", "action_id": 3, "start_s": 1.0, "end_s": 2.0, "score": 0.5}
    name = next(iter(row))
    first = good if row[name] is None or isinstance(row[name], float) or name == "action_id" else good | row
    if isinstance(row[name], str) and name == "action_id":
        first = good | {name: ACTIONS[3]}
    pd.DataFrame([first, good | row]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DetectionTableError, match=reason):
        read_detections(str(tmp_path / "t.parquet"))


def test_what_is_no_table_of_detections_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not a table")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.txt").write_text("x")
    for uri, reason in (
        (tmp_path / "absent.parquet", "no table of detections at"),
        (tmp_path / "absent", "no table of detections at"),
        (tmp_path / "text.parquet", "is not a Parquet file"),
        (tmp_path / "folder", "no Parquet files below"),
        (
            write_table(tmp_path / "t.parquet", [("v", 1)], ["video", "start_s"]),
            "has no column action_id or action; a table",
        ),
        (write_table(tmp_path / "u.parquet", [("v", 1)], ["video", "action"]), "has no column score or probability"),
        (
            write_table(tmp_path / "w.parquet", [("v", 1, 0.5)], ["video", "action", "score"]),
            "lacks the columns start_s, end_s; a table of detections has video, start_s, end_s, action_id or action, and score",
        ),
    ):
        with pytest.raises(DetectionTableError, match=reason):
            read_detections(str(uri))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task": "recognition"}, "detections are measured with task=detection"),
        ({"task": "recognition", "detections": None}, "model is required"),
        ({"model": "demo"}, "either a model or a table of detections: give one of them"),
        ({"detections": None}, "either a model or a table of detections: give one of them"),
        ({"people": "auto"}, "people and skeletons do not apply to task=detection"),
        ({"skeletons": "/s.parquet"}, "people and skeletons do not apply to task=detection"),
    ],
)
def test_settings_of_the_other_task_are_refused(
    settings: EvaluateSettings, changed: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        EvaluateSettings.model_validate(settings.model_dump() | changed)


def test_the_command_measures_and_submits(tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    """MMA-52's list, and a table of detections; then one of other videos."""
    (tmp_path / "val.csv").write_text(
        "id,video_id,start_frame,end_frame,class,total_frames,fps\n0,v0,30,60,9,300,30.0\n1,v1,0,30,5,300,30.0\n"
    )
    found = write_table(tmp_path / "found.parquet", [(video.removesuffix(".mp4"), *rest) for video, *rest in FOUND])
    arguments = [
        f"--{name}={tmp_path}/{at}" for name, at in (("clips-list", "val.csv"), ("videos", "v"), ("out", "out"))
    ]
    result = job("evaluate", "--task=detection", f"--detections={found}", *arguments, f"--submission={tmp_path}/p.zip")
    assert result.returncode == 0
    assert "every detection counts as an event" in result.stderr
    assert MMA52_NOTE in " ".join(result.stderr.replace("│", " ").split())
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["num_true"], metrics["num_videos"], metrics["map_challenge_of_true_classes"]) == (2, 2, 0.5)
    assert (tmp_path / "p.zip").exists()
    write_table(tmp_path / "found.parquet", [("other", *row[1:]) for row in FOUND])
    failed = job("evaluate", "--task=detection", f"--detections={found}", *arguments)
    assert failed.returncode == 2
    assert "names must agree" in failed.stderr
