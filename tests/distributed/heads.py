"""Head nodes that tests start for themselves with `ray start`. `ray stop` would end every Ray of this computer."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
POLL_S = 0.2


def without_ray_variables() -> dict[str, str]:
    """Return the environment of this process without what points to another Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def running_head(folder: Path, port: int, environment: Mapping[str, str], *options: str) -> Iterator[None]:
    """Run a head node on loopback, with its files in a folder whose path is short, and kill it and its nodes at the end."""
    client, agent = free_ports(2)
    start = [
        *(RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--disable-usage-stats"),
        *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}/ray"),
        *options,
    ]
    log = folder / "head.log"
    with log.open("w") as file:
        head = subprocess.Popen(start, env=dict(environment), stdout=file, stderr=file, start_new_session=True)
    try:
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            time.sleep(POLL_S)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        subprocess.run(["pkill", "--signal", "KILL", "--full", f"{folder}/ray"], check=False)  # those in other groups
