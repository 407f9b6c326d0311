"""`ray job submit` as the documentation shows it, against a head node of this module's own."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from microaction.registry import promote, register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from tests.distributed.heads import RAY, free_ports, running_head, without_ray_variables
from tests.labeling.decoders import gate
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
NUM_VIDEOS = 3
MAX_CARRIED_BYTES = 8 << 20  # the documentation says a few MB
POLL_S = 0.2


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment with which clients use a head with token authentication on loopback."""
    port, dashboard = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        folder = Path(name)
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        on_head = without_ray_variables() | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # of the head: a job's `python` comes from it
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        options = ("--num-cpus=4", f"--dashboard-port={dashboard}", "--object-store-memory=268435456")
        with running_head(folder, port, on_head, *options):
            yield on_head | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}


def ray_job(env: dict[str, str], *arguments: str, succeeds: bool = True) -> str:
    """Run `ray job …`; return what it prints."""
    done = subprocess.run([RAY, "job", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


def statuses(env: dict[str, str]) -> dict[str, str]:
    """Return the status of every submission, as `ray job list` does in several seconds."""
    token = Path(env["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(f"{env['RAY_ADDRESS']}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as response:
        return {job["submission_id"]: job["status"] for job in json.load(response) if job["submission_id"]}


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(POLL_S)


@pytest.mark.slow
def test_a_submitted_job_needs_absolute_paths(environment: dict[str, str], tmp_path: Path) -> None:
    submit = ("submit", "--working-dir", ".", "--", "python", "-m", "jobs.label")
    log = ray_job(environment, *submit, str(tmp_path), "labels", "--model", str(tmp_path), succeeds=False)
    assert "'labels' is a relative path, but a submitted job runs in a temporary copy" in log


@pytest.mark.slow
def test_a_killed_or_stopped_job_continues_when_submitted_again(
    environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for number in range(NUM_VIDEOS):
        write_video(archive / f"{number}.mp4", num_frames=180)
    settings = (str(archive), str(out), "--model", model, "--chunk-s", "1", "--people", "off")

    def committed() -> int:
        return len(list(out.glob("_chunks/*")))

    def interrupt(submission: str, how: Callable[[dict[str, str], str, str], None], status: str) -> None:
        """Submit a job that never finishes, interrupt it once it has committed something, and wait for its end."""
        before = committed()
        command = ("--working-dir", ".", "--", "python", "-m", "tests.labeling.gated_label", *settings)
        ray_job(environment, "submit", "--no-wait", "--submission-id", submission, *command)
        wait_for(lambda: committed() > before)
        how(environment, submission, str(out))
        wait_for(lambda: statuses(environment)[submission] == status)

    gate(archive).write_text("1")
    interrupt("killed", kill_driver, "FAILED")
    gate(archive).write_text("2")
    interrupt("stopped", stop, "STOPPED")
    assert not (out / "videos").exists()
    log = ray_job(environment, "submit", "--working-dir", ".", "--", "python", "-m", "jobs.label", *settings)
    assert "succeeded" in log
    videos = pd.read_parquet(out / "videos")
    assert len(videos) == NUM_VIDEOS
    assert videos["covered_s"].sum() == pytest.approx(videos["duration_s"].sum())
    assert not pd.read_parquet(out / "windows", columns=["video", "start_s"]).duplicated().any()
    summary = json.loads((out / "_run.json").read_text())["summary"]
    assert summary["num_committed_before"] > 0


def kill_driver(environment: dict[str, str], submission: str, out: str) -> None:
    driver = f"^[^ ]*python -m tests.labeling.gated_label .* {out} "
    subprocess.run(["pkill", "--signal", "KILL", "--full", driver], check=True)


def stop(environment: dict[str, str], submission: str, out: str) -> None:
    ray_job(environment, "stop", submission)


def ignored_among(paths: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the paths that patterns of .gitignore name: those with a leading slash at the top only, others at any depth."""

    def is_ignored(path: str) -> bool:
        parts = PurePath(path).parts
        return any(
            fnmatch(part, pattern.strip("/"))
            for pattern in patterns
            for part in (parts[:1] if pattern.startswith("/") else parts)
        )

    return {path for path in paths if is_ignored(path)}


@pytest.mark.slow
def test_a_submission_uploads_no_ignored_files(environment: dict[str, str]) -> None:
    """The documented command uploads the working directory, without what .gitignore and .rayignore name."""
    files = (ROOT / name for name in (".gitignore", ".rayignore"))
    lines = (line.strip() for file in files for line in file.read_text().splitlines())
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert not any("!" in each or "/" in each.strip("/") for each in patterns), "`ignored_among` does not know these"
    planted = {"microaction.egg-info/PKG-INFO", "jobs/__pycache__/pack.cpython-311.pyc", ".venv/bin/ray", "demo/a.mp4"}
    assert ignored_among(planted | {"jobs/demo/a.py", "jobs/pack.py"}, patterns) == planted

    script = (
        "import json, os; files = [os.path.relpath(os.path.join(d, f)) for d, _, fs in os.walk('.') for f in fs]; "
        "print('carried', json.dumps({file: os.path.getsize(file) for file in files}))"
    )
    log = ray_job(environment, "submit", "--working-dir", ".", "--", "python", "-c", script)
    (line,) = (line for line in log.splitlines() if line.startswith("carried "))
    carried = json.loads(line.removeprefix("carried "))
    assert {"jobs/label.py", "microaction/registry/__init__.py"} <= carried.keys()
    assert not ignored_among(carried, [*patterns, "/.git"])
    assert sum(carried.values()) < MAX_CARRIED_BYTES


def weekly_retraining() -> tuple[list[str], dict[str, str]]:
    """Return the CronJob's command, and its variables; those whose values come from elsewhere are empty."""
    (document,) = yaml.safe_load_all((ROOT / "cluster/kuberay/jobs/retrain-weekly.yaml").read_text())
    (container,) = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert variables.keys() == {"JOB", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RETRAIN"}
    return container["command"] + container["args"], variables


def weekly_environment(environment: dict[str, str], job: str, retrain: str) -> dict[str, str]:
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    kept = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    return kept | {"RAY_AUTH_TOKEN": token, "RETRAIN": retrain, "JOB": job}


@pytest.mark.slow
def test_the_weekly_retraining_accepts_a_rejected_candidate(environment: dict[str, str]) -> None:
    """Its script, with a command in place of a retraining that exits as one whose gates reject the candidate."""
    command, _ = weekly_retraining()
    env = weekly_environment(environment, "rejected", "python -c 'raise SystemExit(3)'")
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: status for name, status in statuses(environment).items() if name.startswith("rejected")} == {
        "rejected-1": "SUCCEEDED"
    }


@pytest.mark.slow
def test_the_weekly_retrainings_command_works(environment: dict[str, str], model: str, tmp_path: Path) -> None:
    """The CronJob's own command and variables, with folders in place of its buckets."""
    command, variables = weekly_retraining()
    env = weekly_environment(environment, "weekly-1", variables["RETRAIN"].replace("s3://RESULTS", str(tmp_path)))

    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/list.txt").write_text("a_1.mp4 3\nb_1.mp4 4\n")
    shutil.copytree(model, tmp_path / "trained")
    rows = [
        {"name": f"{subject}_1.mp4", "label": label, "subject": subject, "split": "train", "is_readable": True}
        for subject, label in (("a", 3), ("b", 4))
    ]
    table = pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)
    (tmp_path / "trained" / CLIPS_FILE).write_bytes(parquet_bytes(table))
    models = str(tmp_path / "models")
    # Nothing is in production at first, so the first attempt fails.
    submitter = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: "weekly-1-2" in statuses(environment))
    promote(models, register(models, str(tmp_path / "trained"), name="v1").name, reason="")
    log = submitter.communicate()[0].decode()
    assert submitter.returncode == 0, log
    assert "nothing is in production in" in log
    assert "v1 stays in production: 0 new and 0 corrected clips" in log
    # A submitter that replaces this one finds its work done.
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert again.returncode == 0
