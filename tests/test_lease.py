import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from microaction import lease, storage
from microaction.lease import LeaseHeldError, LeaseLostError, held

LIFETIME_S = 1.0
HOLDER = """
import sys, time
from microaction.lease import held
with held(sys.argv[1], lifetime_s=1.0):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_holder_is_refused_while_the_first_lives_and_not_after(tmp_path: Path) -> None:
    folder = str(tmp_path / "out/_lease")
    with held(folder, lifetime_s=LIFETIME_S):
        started_s = time.monotonic()
        with pytest.raises(
            LeaseHeldError, match=rf"process {os.getpid()} on .* is at work in .*/out; wait for its end"
        ):
            held(folder, lifetime_s=LIFETIME_S).__enter__()
        assert time.monotonic() - started_s < LIFETIME_S
    with held(folder, lifetime_s=LIFETIME_S) as later:
        later.require()
    assert len(list((tmp_path / "out/_lease").iterdir())) == 1


def test_a_dead_holder_of_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.wait()
    started_s = time.monotonic()
    with held(str(tmp_path), lifetime_s=60):
        assert time.monotonic() - started_s < 5


def test_a_silent_holder_of_another_machine_is_followed_after_the_lifetime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path)
    monkeypatch.setattr(lease, "_place", lambda: "elsewhere")
    process.send_signal(signal.SIGSTOP)
    try:
        started_s = time.monotonic()
        with held(str(tmp_path), lifetime_s=LIFETIME_S):
            assert LIFETIME_S <= time.monotonic() - started_s < 3 * LIFETIME_S
    finally:
        process.kill()
        process.wait()


def test_who_lost_the_lease_is_told_and_leaves_the_others_alone(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with held(folder, lifetime_s=60) as first:
        later = json.loads(storage.read_bytes(f"{folder}/00000001.json")) | {"beats": 7}
        assert storage.create(f"{folder}/00000002.json", json.dumps(later).encode())
        first.require(look=False)
        with pytest.raises(LeaseLostError, match="took the lease"):
            first.require()
        with pytest.raises(LeaseLostError):
            first.require(look=False)
    assert json.loads(storage.read_bytes(f"{folder}/00000002.json")) == later
    assert not json.loads(storage.read_bytes(f"{folder}/00000001.json"))["released"]


def test_of_many_who_follow_a_dead_holder_one_does(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.wait()
    got: list[str] = []
    everybody, done = threading.Barrier(6), threading.Event()

    def follow() -> None:
        everybody.wait()
        try:
            with held(str(tmp_path), lifetime_s=LIFETIME_S):
                got.append("held")
                done.wait(20)
        except LeaseHeldError:
            got.append("refused")

    threads = [threading.Thread(target=follow) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + 20
    while len(got) < 6 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["held"] + ["refused"] * 5
