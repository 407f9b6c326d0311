"""`ray job submit` as the README says, against a head node of this test's own."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from microaction.registry import promote, register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from tests.videos import write_video

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
LIMIT_S = 120
NUM_VIDEOS = 12
CARRIED_BYTES = 2 << 20  # the README says about 1 MB


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """A head with token authentication on loopback; `ray stop` would end every Ray of the machine, so its group is killed."""
    port, dashboard, client, agent = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        # The job's `python` is the one on the PATH of the head.
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        start = [
            *(RAY, "start", "--head", "--block", "--num-cpus=4", "--node-ip-address=127.0.0.1", f"--port={port}"),
            *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", f"--temp-dir={folder}/ray"),
            *("--dashboard-agent-listen-port", str(agent), "--object-store-memory=268435456"),
        ]
        head_env = {name: value for name, value in env.items() if name != "RAY_ADDRESS"}
        log = open(Path(folder) / "head.log", "w")  # noqa: SIM115
        head = subprocess.Popen(start, env=head_env, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_dashboard(env, head)
            yield env
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            log.close()


def wait_for_dashboard(env: dict[str, str], head: "subprocess.Popen[bytes]") -> None:
    for _ in range(30):
        listed = subprocess.run([RAY, "job", "list"], env=env, capture_output=True, timeout=60, check=False)
        if listed.returncode == 0:
            return
        assert head.poll() is None, "ray start --head ended"
    raise AssertionError("the dashboard did not answer")


def submit(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S)


def test_a_submitted_job_needs_absolute_places(environment: dict[str, str], archive: Path, model: str) -> None:
    relative = submit(environment, "jobs.label", str(archive), "labels", "--model", model)
    assert relative.returncode != 0
    assert "'labels' is a relative path, and a submitted job runs in a copy" in relative.stdout + relative.stderr


def ray_job(env: dict[str, str], *arguments: str) -> str:
    """`ray job …`; returns what it prints."""
    done = subprocess.run([RAY, "job", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_for(what: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_a_job_that_was_killed_or_stopped_goes_on_when_it_is_submitted_again(
    environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for number in range(NUM_VIDEOS):
        write_video(archive / f"{number}.mp4", num_frames=180)
    label = (
        "python",
        "-m",
        "jobs.label",
        str(archive),
        str(out),
        "--model",
        model,
        "--chunk-s",
        "0.1",
        "--stride-s",
        "0.1",
    )

    def committed() -> int:
        return len(list(out.glob("_chunks/*")))

    def begin_and_end(submission: str, end: Callable[[dict[str, str], str, str], None], status: str) -> None:
        before = committed()
        ray_job(environment, "submit", "--no-wait", "--submission-id", submission, "--working-dir", ".", "--", *label)
        wait_for(lambda: committed() > before, f"{submission}: nothing was committed")
        end(environment, submission, str(out))
        said = f"Job '{submission}' {status}"
        wait_for(lambda: said in ray_job(environment, "status", submission), f"{submission} goes on")

    begin_and_end("killed", kill_driver, "failed")
    begin_and_end("stopped", stop, "was stopped")
    assert not (out / "videos").exists(), "it was to end before it was done"
    log = ray_job(environment, "submit", "--working-dir", ".", "--", *label)
    assert "succeeded" in log
    videos = pd.read_parquet(out / "videos")
    assert len(videos) == NUM_VIDEOS
    assert videos["covered_s"].sum() == pytest.approx(videos["duration_s"].sum())
    assert not pd.read_parquet(out / "windows", columns=["video", "start_s"]).duplicated().any()


def kill_driver(environment: dict[str, str], submission: str, out: str) -> None:
    subprocess.run(["pkill", "--signal", "KILL", "--full", f"^[^ ]*python -m jobs.label .* {out} "], check=True)


def stop(environment: dict[str, str], submission: str, out: str) -> None:
    ray_job(environment, "stop", submission)


def ignored_among(paths: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Those of the paths that patterns of .gitignore name: one with a leading slash at the top alone, others at any depth."""

    def is_ignored(path: str) -> bool:
        parts = PurePath(path).parts
        return any(
            fnmatch(part, pattern.strip("/"))
            for pattern in patterns
            for part in (parts[:1] if pattern.startswith("/") else parts)
        )

    return {path for path in paths if is_ignored(path)}


def test_what_a_submission_carries_is_small(environment: dict[str, str]) -> None:
    """The README's command carries the working directory: what .gitignore names stays where it is."""
    lines = (line.strip() for line in (ROOT / ".gitignore").read_text().splitlines())
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert not any("!" in each or "/" in each.strip("/") for each in patterns), "git reads these otherwise"
    planted = {"microaction.egg-info/PKG-INFO", "jobs/__pycache__/pack.cpython-311.pyc", ".venv/bin/ray", "demo/a.mp4"}
    assert ignored_among(planted | {"tests/demo/a.py", "jobs/pack.py"}, patterns) == planted

    script = (
        "import json, os; files = [os.path.relpath(os.path.join(d, f)) for d, _, fs in os.walk('.') for f in fs]; "
        "print('carried', json.dumps({file: os.path.getsize(file) for file in files}))"
    )
    log = ray_job(environment, "submit", "--working-dir", ".", "--", "python", "-c", script)
    (line,) = (line for line in log.splitlines() if line.startswith("carried "))
    carried = json.loads(line.removeprefix("carried "))
    assert {"jobs/label.py", "microaction/registry.py"} <= carried.keys()
    assert not ignored_among(carried, [*patterns, "/.git"])
    assert sum(carried.values()) < CARRIED_BYTES


def weekly_retraining() -> tuple[list[str], dict[str, str]]:
    """The CronJob's command, and the variables that it is given; those that come from elsewhere are empty."""
    (document,) = yaml.safe_load_all((ROOT / "cluster/kuberay/jobs/retrain-weekly.yaml").read_text())
    (container,) = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert variables.keys() == {"JOB", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RETRAIN"}
    return container["command"] + container["args"], variables


def weekly_environment(environment: dict[str, str], job: str, retrain: str) -> dict[str, str]:
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    kept = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    return kept | {"RAY_AUTH_TOKEN": token, "RETRAIN": retrain, "JOB": job}


def test_the_weekly_retraining_takes_a_refused_model_for_done(environment: dict[str, str]) -> None:
    """Its script, with what ends as a retraining does that refuses its model in place of one."""
    command, _ = weekly_retraining()
    env = weekly_environment(environment, "refused", "python -c 'raise SystemExit(3)'")
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Job 'refused-1' succeeded" in ray_job(environment, "status", "refused-1")
    assert "refused-2" not in ray_job(environment, "list")


def test_the_weekly_retrainings_command_does_what_it_says(
    environment: dict[str, str], model: str, tmp_path: Path
) -> None:
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
    # Nothing is in production at first, so that the first attempt fails.
    submitter = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for(lambda: "weekly-1-2" in ray_job(environment, "list"), "a second attempt")
    promote(models, register(models, str(tmp_path / "trained"), name="v1").name, reason="")
    said = submitter.communicate(timeout=LIMIT_S)[0].decode()
    assert submitter.returncode == 0, said
    assert "nothing is in production in" in said
    assert "v1 stays in production: 0 new and 0 corrected clips" in said
    # A submitter that takes the place of this one finds its work done.
    again = subprocess.run(
        command,
        cwd=tmp_path,
        env=env,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert again.returncode == 0
