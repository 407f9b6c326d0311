"""The lease. Lifetimes are so long that they never end by the real clock: tests end them by a clock of their own."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microaction import storage
from microaction.storage import lease
from microaction.storage.lease import LeaseHeldError, LeaseLostError, hold_lease

LIFETIME_S = 3600.0
INTERVALS_PER_LIFETIME = 36_000  # of 0.1 s
NUM_CONTENDERS = 6
HOLDER = f"""
import sys
from microaction.storage.lease import hold_lease
with hold_lease(sys.argv[1], lifetime_s={LIFETIME_S}):
    print("held", flush=True)
    sys.stdin.read()
"""


class SimulatedTime:
    """Stands in for the module `time` in the lease: sleeping takes no time, and moves the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimulatedTime:
    clock = SimulatedTime()
    monkeypatch.setattr(lease, "time", clock)
    return clock


@pytest.fixture
def frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder shows soon that it is alive, although its lifetime is long."""
    monkeypatch.setattr(lease, "HEARTBEATS_PER_LIFETIME", INTERVALS_PER_LIFETIME)
    monkeypatch.setattr(lease, "POLLS_PER_LIFETIME", INTERVALS_PER_LIFETIME)


@contextmanager
def holder_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that holds the lease until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("frequent_heartbeats")
def test_a_second_holder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    folder = str(tmp_path / "out/_lease")
    with hold_lease(folder, lifetime_s=LIFETIME_S):
        expected = rf"process {os.getpid()} on .* is running in .*/out: wait until it ends, or stop it"
        with pytest.raises(LeaseHeldError, match=expected), hold_lease(folder, lifetime_s=LIFETIME_S):
            pass
    with hold_lease(folder, lifetime_s=LIFETIME_S) as later:
        later.check()
    assert len(list((tmp_path / "out/_lease").iterdir())) == 1


def test_a_dead_holder_on_this_node_is_replaced_at_once(tmp_path: Path, clock: SimulatedTime) -> None:
    with holder_process(tmp_path) as process:
        process.kill()
        process.wait()
    with hold_lease(str(tmp_path), lifetime_s=LIFETIME_S):
        assert clock.now_s == 0


def test_a_silent_holder_on_another_node_is_replaced_in_time(
    tmp_path: Path, clock: SimulatedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        monkeypatch.setattr(lease, "_pid_namespace", lambda: "of another node")
        with hold_lease(str(tmp_path), lifetime_s=LIFETIME_S):
            assert LIFETIME_S <= clock.now_s < LIFETIME_S * (1 + 2 / lease.POLLS_PER_LIFETIME)


def test_a_lost_lease_is_reported_and_the_new_one_kept(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with hold_lease(folder, lifetime_s=LIFETIME_S) as first:
        later = json.loads(storage.read_bytes(f"{folder}/00000001.json")) | {"heartbeats": 7}
        assert storage.put_if_absent(f"{folder}/00000002.json", json.dumps(later).encode())
        first.check(refresh=False)
        with pytest.raises(LeaseLostError, match="took over the lease"):
            first.check()
        with pytest.raises(LeaseLostError):
            first.check(refresh=False)
    assert json.loads(storage.read_bytes(f"{folder}/00000002.json")) == later
    assert not json.loads(storage.read_bytes(f"{folder}/00000001.json"))["released"]


@pytest.mark.usefixtures("frequent_heartbeats")
def test_only_one_of_many_replaces_a_dead_holder(tmp_path: Path) -> None:
    with holder_process(tmp_path) as process:
        process.kill()
        process.wait()
    results: queue.SimpleQueue[str] = queue.SimpleQueue()
    start, done = threading.Barrier(NUM_CONTENDERS), threading.Event()

    def contend() -> None:
        start.wait()
        try:
            with hold_lease(str(tmp_path), lifetime_s=LIFETIME_S):
                results.put("held")
                done.wait()
        except LeaseHeldError:
            results.put("refused")

    threads = [threading.Thread(target=contend, daemon=True) for _ in range(NUM_CONTENDERS)]
    for thread in threads:
        thread.start()
    try:
        found = [results.get() for _ in threads]
    finally:
        done.set()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["held"] + ["refused"] * (NUM_CONTENDERS - 1)
