"""Commands on files, as people run them: most in this process, some as processes of their own with a Ray of their own."""

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
import torch

from microaction.models import load_checkpoint
from tests.conftest import CommandResult
from tests.models.manet.published import published_state, small_network
from tests.models.networks import randomize_weights
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

ROOT = Path(__file__).parents[2]
REPORT = {
    *("metrics.json", "per_class.csv", "predictions.parquet"),
    *("confusion.svg", "per_class.svg", "calibration.svg"),
}


def run_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m jobs.…` from the project's folder."""
    command = [sys.executable, "-m", f"jobs.{arguments[0]}", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def table_of(result: CommandResult) -> dict[str, str]:
    """Return the table that a command has printed."""
    return dict(re.findall(r"│ (\S.*?) +│ (\S.*?) +│", result.stderr))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file of weights in the layout of MANet's authors."""
    torch.save({"state_dict": published_state(randomize_weights(small_network()))}, tmp_path / "manet.pth")
    return tmp_path / "manet.pth"


def test_catalog_plan_and_label_work_on_files(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    catalog = str(tmp_path / "catalog.parquet")
    listed = job("catalog", str(archive), catalog)
    assert listed.returncode == 0
    assert (table_of(listed)["videos"], table_of(listed)["unreadable"]) == ("7", "4")
    assert len(pd.read_parquet(catalog)) == 7
    assert "empty.mp4: the file is empty" in listed.stderr
    command = ("label", "--people=off", str(archive), str(tmp_path / "out"), "--model", model)
    planned = job(*command, "--plan")
    assert planned.returncode == 0
    rows = table_of(planned)
    assert rows["videos"] == "7, 4 of them unreadable"
    assert rows["chunks"] == "3: 0 committed, 3 to do (0:10 min)"
    assert int(rows["windows to label"]) == 9
    assert re.fullmatch(r"\d+\.\d MiB", rows["bytes to read"])
    assert re.fullmatch(r"\d+ core-seconds", rows["decoding"])
    assert not (tmp_path / "out").exists(), "a plan writes nothing"

    os.utime(archive / "a.mp4")  # another version than the catalog's: a failure that says nothing about the video
    with_catalog = (*command, "--catalog", catalog)
    changed = job(*with_catalog)
    assert changed.returncode == 1
    assert "1 chunks or videos failed for transient reasons (see failures/)" in changed.stderr
    rows = table_of(job(*with_catalog, "--plan"))
    assert (rows["chunks"], rows["failed before"]) == ("3: 2 committed, 1 to do (0:07 min)", "1")

    assert job("catalog", str(archive), catalog).returncode == 0
    labeled = job(*with_catalog, "--page")
    assert labeled.returncode == 0
    assert f"open {tmp_path}/out/report/index.html" in labeled.stderr
    assert len(list((tmp_path / "out" / "report" / "videos").glob("*.html"))) == 7
    rows = table_of(labeled)
    assert (rows["videos"], rows["windows"], rows["failures (see failures/)"]) == ("7", "9", "4")
    assert rows["chunks labeled now / committed before"] == "1 / 2"
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["summary"]["publication"]["num_failures"] == 4
    assert len(pd.read_parquet(tmp_path / "out/failures")) == 4
    assert pd.read_parquet(tmp_path / "out/videos")["covered_s"].sum() == pytest.approx(10.1, abs=0.01)


def test_a_job_with_its_own_ray_prints_only_its_result(archive: Path, model: str, tmp_path: Path) -> None:
    """Ray reports at error level that its own actor pools have arguments in the object store; that is filtered."""
    labeled = run_job(
        "label", "--people=off", str(archive), str(tmp_path / "out"), "--model", model, "--precision", "fp32"
    )
    assert labeled.returncode == 0, labeled.stderr
    assert labeled.stdout == ""
    lines = [line for line in labeled.stderr.splitlines() if "authentication_token_setup" not in line]
    assert lines[0].strip() == "Labels", labeled.stderr
    assert lines[-1].startswith("└"), labeled.stderr


def test_published_weights_label_at_once(published: Path, tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    (tmp_path / "archive").mkdir()
    write_video(tmp_path / "archive/v.mp4", num_frames=30)
    labeled = job("label", "--people=off", str(tmp_path / "archive"), str(tmp_path / "out"), "--model", str(published))
    assert labeled.returncode == 0
    (notice,) = (line for line in labeled.stderr.splitlines() if "not calibrated" in line)
    assert notice.startswith(f"{published}: ")
    assert "MA-52" in notice
    assert "non-commercial" in notice
    assert pd.read_parquet(tmp_path / "out/windows")["model"].astype(str).tolist() == [str(published)]


def test_published_weights_become_a_checkpoint(
    published: Path, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    imported = job("import", str(published), str(tmp_path / "plain"))
    assert imported.returncode == 0
    origin, notice = imported.stderr.splitlines()
    assert origin.startswith(f"{tmp_path}/plain: ")
    assert "SHA-256" in origin
    assert "not calibrated" in notice
    assert load_checkpoint(str(tmp_path / "plain")).digest == load_checkpoint(str(published)).digest

    clips = ("--calibrate-list", write_clips(tmp_path), "--calibrate-videos", str(tmp_path))
    imported = job("import", str(published), str(tmp_path / "calibrated"), *clips)
    assert imported.returncode == 0
    assert "not calibrated" not in imported.stderr
    temperature = load_checkpoint(str(tmp_path / "calibrated")).config.temperature
    assert float(table_of(imported)["temperature"]) == pytest.approx(temperature, abs=1e-4)
    assert temperature != 1


def write_clips(folder: Path) -> str:
    """Write 16 clips of four actions; return their list."""
    for i in range(16):
        write_video(folder / f"{i}.mp4", num_frames=20 + i, size=(80, 96))
    (folder / "list.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(16)))
    return str(folder / "list.txt")


def test_evaluate_writes_a_report_and_a_submission(
    model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    clips = ("--clips-list", write_clips(tmp_path), "--videos", str(tmp_path))
    out = ("--out", f"{tmp_path}/report", "--submission", f"{tmp_path}/submission.zip")
    evaluated = job("evaluate", "--model", model, *clips, *out)
    assert evaluated.returncode == 0
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert float(table_of(evaluated)["f1_mean"]) == pytest.approx(metrics["f1_mean"], abs=1e-4)
    assert {path.name for path in (tmp_path / "report").iterdir()} == REPORT
    assert zipfile.is_zipfile(tmp_path / "submission.zip")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_training_resumes_by_name(tmp_path: Path) -> None:
    """With a Ray of its own, which is killed too. tests/training/test_chaos.py compares what such a run ends with."""
    clips = write_clips(tmp_path)
    lists = [f"--{split}-list={clips}" for split in ("train", "val")]
    videos = [f"--{split}-videos={tmp_path}" for split in ("train", "val")]
    small = ["--model.width=8", "--model.depths=[1,1,1,1]", "--preprocessing.short-side=40", "--preprocessing.crop=32"]
    recipe = ["--recipe.batch-size=4", "--recipe.epochs=3"]
    arguments = ["train", *lists, *videos, *small, *recipe, f"--storage-path={tmp_path}/runs", "--name=killed"]
    command = [sys.executable, "-m", "jobs.train", *arguments[1:]]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, cwd=ROOT, start_new_session=True)
        while not list(tmp_path.glob("runs/killed/state/step-*.pt")):  # after the first epoch
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    again = run_job(*arguments)
    assert again.returncode == 0, again.stderr
    epochs = [line.split(":")[0] for line in again.stderr.splitlines() if line.startswith("epoch ")]
    assert "epoch 3/3" in epochs
    assert "epoch 1/3" not in epochs, "it resumes where the killed run stopped"
    assert (tmp_path / "runs/killed/best/config.json").exists()
