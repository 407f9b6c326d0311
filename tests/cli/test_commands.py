"""Jobs as people start them, rightly and wrongly."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from microaction.cli.app import parse_settings
from microaction.labeling.settings import LabelSettings
from microaction.models import ManetConfig
from microaction.training.settings import TrainSettings
from tests.conftest import Ended
from tests.videos import write_video

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
JOBS = ("catalog", "pack", "train", "evaluate", "label", "registry", "retrain", "demo")
LIMIT_S = 200
TRAIN = ("train", "--train-list", "l", "--train-videos", "v", "--storage-path", "s", "--name", "n")


def run_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m jobs.…` from the project's folder."""
    command = [sys.executable, "-m", f"jobs.{arguments[0]}", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S)


@pytest.mark.parametrize("name", JOBS)
def test_help_describes_every_setting(name: str, job: Callable[..., Ended]) -> None:
    result = job(name, "--help")
    assert result.returncode == 0
    assert f"microaction {name}" in result.stdout
    assert "--config" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("label", "in", "out"), "model: Field required"),
        (("label", "in", "out", "--model", "m", "--nope"), "unrecognized arguments: --nope"),
        (("label", "in", "out", "--model", "m", "--stride-s", "5"), "stride_s (5.0) must be at most window_s (2.0)"),
        (("label", "in", "out", "--model", "m", "--window-s", "long"), "window-s: Input should be a valid number"),
        (
            ("label", "in", "out", "--model", "m", "--continue-threshold", "0.6"),
            "continue_threshold (0.6) must be at most start_threshold (0.5)",
        ),
        (("label", "in", "out", "--model", "m", "--config", "absent.yaml"), "no file at absent.yaml"),
        (("catalog",), "archive: Field required out: Field required"),
        (("train", "--name", "../up"), "name: String should match pattern"),
        ((*TRAIN,), "give val_list and val_videos, or split_by=subject to hold out subjects of train_list"),
        ((*TRAIN, "--split-by", "person"), "split-by: Input should be 'list' or 'subject'"),
        ((*TRAIN, "--val-list", "l"), "val_list and val_videos belong together"),
        ((*TRAIN, "--split-by", "subject", "--min-workers", "3"), "min_workers (3) must be at most num_workers (1)"),
    ],
)
def test_wrong_use_is_said_in_a_line_and_exits_with_2(
    arguments: tuple[str, ...], says: str, job: Callable[..., Ended]
) -> None:
    result = job(*arguments)
    assert result.returncode == 2
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_what_is_missing_is_said_in_a_line_and_exits_with_2(tmp_path: Path, model: str) -> None:
    for arguments, says in (
        (("label", str(tmp_path), str(tmp_path / "out"), "--model", str(tmp_path)), "is not a checkpoint directory"),
        (("label", str(tmp_path / "absent"), str(tmp_path / "out"), "--model", model), "no files below"),
    ):
        result = run_job(*arguments)
        assert result.returncode == 2, result.stderr
        assert says in result.stderr
        assert "Traceback" not in result.stderr


def test_a_yaml_file_gives_settings_and_flags_go_before_it(tmp_path: Path) -> None:
    path = tmp_path / "label.yaml"
    path.write_text("archive: s3://b/in\nout: s3://b/out\nmodel: s3://b/m\nstride-s: 0.5\nwindow_s: 3\n")
    settings = parse_settings(LabelSettings, ["--config", str(path), "--window-s", "4"])
    assert (settings.archive, settings.out, settings.model) == ("s3://b/in", "s3://b/out", "s3://b/m")
    assert (settings.stride_s, settings.window_s) == (0.5, 4.0)


def test_parts_of_nested_settings_may_come_from_both(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "train_list: /l\ntrain_videos: /v\nval_list: /l\nval_videos: /v\nstorage_path: /s\nname: n\n"
        "recipe: {epochs: 3, batch_size: 20}\n"
    )
    settings = parse_settings(TrainSettings, ["--config", str(path), "--recipe.epochs", "5", "--model.width", "16"])
    assert (settings.recipe.epochs, settings.recipe.batch_size) == (5, 20)
    assert settings.model == ManetConfig(width=16)


def test_flags_override_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "label.yaml"
    path.write_text("archive: /in\nmodel: /m\nwindow-s: 3\nstride-s: 0.25\nchunk_s: 60\n")
    for name, value in {"OUT": "/out", "STRIDE_S": "0.5", "CHUNK_S": "30", "CONFIG": str(path)}.items():
        monkeypatch.setenv(f"MICROACTION_{name}", value)
    settings = parse_settings(LabelSettings, ["--chunk-s", "90"])
    assert (settings.archive, settings.out, settings.model) == ("/in", "/out", "/m")
    assert (settings.window_s, settings.stride_s, settings.chunk_s) == (3.0, 0.5, 90.0)
    monkeypatch.setenv("MICROACTION_RECIPE__EPOCHS", "4")
    train = parse_settings(TrainSettings, [*TRAIN[1:], "--split-by", "subject", "--config", str(empty(tmp_path))])
    assert train.recipe.epochs == 4


def empty(folder: Path) -> Path:
    (folder / "empty.yaml").write_text("{}")
    return folder / "empty.yaml"


def test_catalog_and_label_work_on_files(archive: Path, model: str, tmp_path: Path) -> None:
    listed = run_job("catalog", str(archive), str(tmp_path / "catalog.parquet"))
    assert listed.returncode == 0, listed.stderr
    assert len(pd.read_parquet(tmp_path / "catalog.parquet")) == 7
    assert "empty.mp4: the file is empty" in listed.stderr
    command = ("label", str(archive), str(tmp_path / "out"), "--model", model)
    planned = run_job(*command, "--plan")
    assert planned.returncode == 0, planned.stderr
    rows = dict(re.findall(r"│ (\S.*?) +│ (\S.*?) +│", planned.stderr))
    assert rows["videos"] == "7, 4 of them unreadable"
    assert rows["chunks"] == "3: 0 committed, 3 to do (0.0 h)"
    assert int(rows["windows to label"]) == 9
    assert re.fullmatch(r"0\.0 GiB", rows["bytes to read"])
    assert re.fullmatch(r"\d+\.\d\d core-hours", rows["decoding"])
    assert not (tmp_path / "out").exists(), "a plan writes nothing"
    labelled = run_job(*command, "--catalog", str(tmp_path / "catalog.parquet"), "--max-failed", "3")
    assert labelled.returncode == 3, labelled.stderr
    assert "4 spans could not be labeled, more than max_failed (3)" in labelled.stderr
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["summary"]["publication"]["num_failures"] == 4
    assert len(pd.read_parquet(tmp_path / "out/failures")) == 4
    assert pd.read_parquet(tmp_path / "out/videos")["covered_s"].sum() == pytest.approx(10.1, abs=0.01)

    os.utime(archive / "a.mp4")  # another version than the catalog's: no fault of the chunk's
    catalog = ("--catalog", str(tmp_path / "catalog.parquet"))
    again = ("label", str(archive), str(tmp_path / "again"), "--model", model, *catalog)
    changed = run_job(*again)
    assert changed.returncode == 1, changed.stderr
    assert "1 chunks or videos failed for transient reasons (see failures/)" in changed.stderr
    planned = run_job(*again, "--plan")
    rows = dict(re.findall(r"│ (\S.*?) +│ (\S.*?) +│", planned.stderr))
    assert (rows["chunks"], rows["failed before"]) == ("3: 2 committed, 1 to do (0.0 h)", "1")


def test_training_that_was_killed_goes_on_by_name_and_is_evaluated(tmp_path: Path) -> None:
    for i in range(16):
        write_video(tmp_path / f"{i}.mp4", num_frames=20 + i, size=(80, 96))
    (tmp_path / "list.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(16)))
    lists = [f"--{s}-{k}={tmp_path}{e}" for s in ("train", "val") for k, e in (("list", "/list.txt"), ("videos", ""))]
    small = ["--model.width=8", "--model.depths=[1,1,1,1]", "--preprocessing.short-side=40", "--preprocessing.crop=32"]
    recipe = ["--recipe.batch-size=4", "--recipe.epochs=5"]
    arguments = ["train", *lists, *small, *recipe, f"--storage-path={tmp_path}/runs", "--name=killed"]
    command = [sys.executable, "-m", "jobs.train", *arguments[1:]]
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(command, stderr=file, cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + LIMIT_S
        while "epoch 2/5:" not in log.read_text() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "epoch 2/5:" in log.read_text()

    again = run_job(*arguments)
    assert again.returncode == 0, again.stderr
    epochs = [line.split(":")[0] for line in again.stderr.splitlines() if line.startswith("epoch ")]
    assert "epoch 5/5" in epochs
    assert "epoch 1/5" not in epochs, "it begins where the killed run stopped"

    report = run_job(
        *("evaluate", "--model", f"{tmp_path}/runs/killed/best", "--clips-list", f"{tmp_path}/list.txt"),
        *("--videos", str(tmp_path), "--out", f"{tmp_path}/report", "--submission", f"{tmp_path}/submission.zip"),
    )
    assert report.returncode == 0, report.stderr
    assert "f1_mean" in report.stderr
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        *("metrics.json", "per_class.csv", "predictions.parquet"),
        *("confusion.png", "per_class.png", "calibration.png"),
    }
    assert zipfile.is_zipfile(tmp_path / "submission.zip")
