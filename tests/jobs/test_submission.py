"""`ray job submit` as the README says, against a head node of this test's own."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
LIMIT_S = 240


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


@pytest.mark.timeout(400)
def test_a_submitted_job_labels_an_archive(
    environment: dict[str, str], archive: Path, model: str, tmp_path: Path
) -> None:
    done = submit(environment, "jobs.label", str(archive), str(tmp_path / "out"), "--model", model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_parquet(tmp_path / "out/videos")) == 7
    assert len(pd.read_parquet(tmp_path / "out/failures")) == 4

    relative = submit(environment, "jobs.label", str(archive), "labels", "--model", model)
    assert relative.returncode != 0
    assert "'labels' is a relative path, and a submitted job runs in a copy" in relative.stdout + relative.stderr
