"""A Ray cluster of several nodes on one computer: a raylet each in its own network namespace, connected by a bridge.

Needs root and `ip`. The nodes share the computer's files, and nothing of its network.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

NETWORK = "10.77.0"
HOST_ADDRESS = f"{NETWORK}.254"
DASHBOARD = "http://127.0.0.1:8265"
PORT = 6379
INTERFACE = "eth0"
START_LIMIT_S = 300  # a node starts in some 5 s
START_ATTEMPTS = 3
POLL_S = 0.1
RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """A cluster whose node 0 is the head. As a context manager it starts the nodes, and at the end kills them with everything
    that runs on them and deletes the namespaces."""

    def __init__(
        self,
        folder: Path,
        num_cpus: Sequence[int],
        *,
        num_gpus: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        with_dashboard: bool = False,
    ) -> None:
        """Prepare a cluster with a node per entry of `num_cpus`.

        `folder` is for Ray's files; its path must be short, because it holds sockets. `num_gpus` are the GPUs that the nodes
        report, `environment` is added to that of the nodes and their processes. `with_dashboard`: the head has a dashboard
        (`DASHBOARD`, on its own loopback) and every node an agent, so that jobs can be submitted.
        """
        self.folder = folder
        self.names = [f"ray-{uuid.uuid4().hex[:6]}" for _ in num_cpus]
        self.num_cpus, self.num_gpus, self._with_dashboard = num_cpus, num_gpus or [0] * len(num_cpus), with_dashboard
        self._has_network = False
        self.address = f"{self._ip_of(0)}:{PORT}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "disabled",  # only the nodes can reach their network
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "5000",  # a busy node is not dead; a killed one refuses connections at once
            "RAY_health_check_failure_threshold": "3",
            "GLOO_SOCKET_IFNAME": INTERFACE,
            "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",  # until Ray detects that a node is dead
            **(environment or {}),
        }

    @contextmanager
    def network(self) -> Iterator[None]:
        """Create the nodes' network before the nodes, for what must be in it when they start; `with nodes` starts them."""
        try:
            self._create_network()
            yield
        finally:
            self._end()

    def __enter__(self) -> Self:
        try:
            if not self._has_network:
                self._create_network()
            for number in range(len(self.names)):
                self._start(number)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def driver(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command on the head that uses the cluster; its output goes to `driver.log`."""
        return self._popen(0, "driver", command, self.environment | {"RAY_ADDRESS": self.address})

    def submit(self, log: str, working_dir: Path, *command: str) -> subprocess.Popen[bytes]:
        """Start `ray job submit` on the head, which waits for the job's end; its output goes to `<log>.log`."""
        job = (RAY, "job", "submit", "--working-dir", str(working_dir), "--", *command)
        return self._popen(0, log, job, self.environment | {"RAY_ADDRESS": DASHBOARD})

    def join_host(self) -> str:
        """Connect the host to the nodes' network; return its address there."""
        head, link = self.names[0], f"ma-{uuid.uuid4().hex[:6]}"
        _ip("-n", head, "link", "add", "host", "type", "veth", "peer", "name", link, "netns", str(os.getpid()))
        _ip("-n", head, "link", "set", "host", "master", INTERFACE, "up")
        # A link that a killed run left would take the answers.
        for line in _ip("-oneline", "address", "show", "to", HOST_ADDRESS).splitlines():
            _ip("link", "delete", line.split()[1].partition("@")[0])
        _ip("address", "add", f"{HOST_ADDRESS}/24", "dev", link)
        _ip("link", "set", link, "up")
        return HOST_ADDRESS

    def disconnect(self, number: int) -> None:
        """Take down a node's network link; its processes keep running."""
        _ip("-n", self.names[0], "link", "set", f"port{number}", "down")

    def reconnect(self, number: int) -> None:
        """Bring a node's network link up again."""
        _ip("-n", self.names[0], "link", "set", f"port{number}", "up")

    def await_loss(self, number: int) -> None:
        """Wait until the head takes a node that it cannot reach for dead."""
        logs = self.folder / "ray0/session_latest/logs"
        death = f"node name: {self._ip_of(number)} has been marked dead"
        while not any(death in log.read_text() for log in logs.glob("gcs_server*")):
            time.sleep(POLL_S)

    def _ip_of(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def _popen(
        self, number: int, name: str, command: Sequence[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            inside = ["ip", "netns", "exec", self.names[number], *command]
            return subprocess.Popen(inside, env=environment, stdout=log, stderr=log, start_new_session=True)

    def log(self, name: str) -> str:
        """Return the end of a log: `driver`, `node-<number>`, `pre-stop`, or that of a submission."""
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def processes(self, number: int, title: str = "") -> list[int]:
        """Return the IDs of a node's processes whose command line begins with `title`."""
        pids = _ip("netns", "pids", self.names[number]).split()
        return [int(pid) for pid in pids if _command_line(pid).startswith(title)]

    def run_pre_stop(self, number: int, command: Sequence[str]) -> None:
        """Start a pod's `preStop` command on a node, as Kubernetes does before it ends the pod; its output goes to
        `pre-stop.log`."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = self.environment | {"RAY_ADDRESS": self.address, "PATH": path, "POD_IP": self._ip_of(number)}
        self._popen(number, "pre-stop", command, environment)

    def replace(self, number: int) -> None:
        """Kill a node and start another one in its place."""
        self.kill(number)
        (self.folder / f"node-{number}.log").unlink()
        self._start(number)

    def kill(self, number: int) -> None:
        """Kill all processes of a node."""
        while pids := self.processes(number):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)

    def _create_network(self) -> None:
        self._has_network = True
        head = self.names[0]
        for number, name in enumerate(self.names):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            if number == 0:
                _ip("-n", head, "link", "add", INTERFACE, "type", "bridge")
            else:
                port = f"port{number}"
                _ip("-n", head, "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", name)
                _ip("-n", head, "link", "set", port, "master", INTERFACE, "up")
            _ip("-n", name, "address", "add", f"{self._ip_of(number)}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", INTERFACE, "up")

    def _start(self, number: int) -> None:
        role = ["--head", f"--port={PORT}", f"--include-dashboard={str(self._with_dashboard).lower()}"]
        if number > 0:
            role = [f"--address={self.address}"]
        options = [
            # One per node, as in a real cluster: a node replaces a job's files there while the job of another node uses them.
            f"--temp-dir={self.folder / f'ray{number}'}",
            f"--node-ip-address={self._ip_of(number)}",
            f"--num-cpus={self.num_cpus[number]}",
            f"--num-gpus={self.num_gpus[number]}",
            f"--object-store-memory={256 << 20}",
        ]
        command, name = (RAY, "start", "--block", "--disable-usage-stats", *role, *options), f"node-{number}"
        deadline_s = time.monotonic() + START_LIMIT_S
        for _ in range(START_ATTEMPTS):  # Ray gives a node 30 s to register, which a busy machine may exceed
            started = self._popen(number, name, command, self.environment)
            while started.poll() is None and "Ray runtime started" not in self.log(name):
                assert time.monotonic() < deadline_s, f"{name} did not start in {START_LIMIT_S} s: {self.log(name)}"
                time.sleep(POLL_S)
            if started.poll() is None:
                return
            self.kill(number)
        raise AssertionError(f"{name} did not start: {self.log(name)}")

    def _end(self) -> None:
        existing = _ip("netns", "list").split()
        for number, name in enumerate(self.names):
            if name in existing:
                self.kill(number)
                _ip("netns", "delete", name)
            shutil.rmtree(self.folder / f"ray{number}", ignore_errors=True)


def workers(nodes: Nodes, word: str, numbers: Sequence[int] | None = None) -> list[int]:
    """Return the IDs of Ray's worker processes, on all nodes or on some, whose title contains a word."""
    numbers = range(len(nodes.names)) if numbers is None else numbers
    pids = [pid for number in numbers for pid in nodes.processes(number, "ray::")]
    return [pid for pid in pids if word in _command_line(str(pid))]


def require_namespaces() -> None:
    """Skip the test where network namespaces cannot be created."""
    name = f"probe-{uuid.uuid4().hex[:6]}"
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command `ip`")
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", INTERFACE, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be created: {error.stderr}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
