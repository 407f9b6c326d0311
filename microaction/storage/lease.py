"""A lease on a folder: at most one process holds it, and it ends by itself when its holder dies.

Terms are numbered files; the highest number is the present term. A process that wants the lease creates the file of the next
number, which only one process can. The holder rewrites its own file at intervals, as a heartbeat. A holder is dead when its
process is, where that can be observed from here, or when its file has not changed for `LIFETIME_S` by the clock of the
process that waits: clocks of different nodes are never compared.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microaction import storage
from microaction.errors import TransientError
from microaction.storage.errors import StorageError

LIFETIME_S = 30.0
HEARTBEATS_PER_LIFETIME = 4
POLLS_PER_LIFETIME = 60
_TERM_FILE = re.compile(r"(\d{8})\.json")


class LeaseHeldError(TransientError, RuntimeError):
    """Another process holds the lease."""


class LeaseLostError(TransientError, RuntimeError):
    """The holder did not renew its lease in time, and another process took it over."""


@dataclass
class Lease:
    """A term that this process holds. `lost` says why it no longer does, and is empty while it does."""

    folder: str
    term: int
    lost: str = ""

    def check(self, *, refresh: bool = True) -> None:
        """Raise `LeaseLostError` if this process no longer holds the lease.

        Looks in storage for later terms, as is necessary before anything that only the holder may do. With `refresh=False` it
        answers from the last heartbeat, some seconds ago.
        """
        if refresh and not self.lost and max(_terms(self.folder), default=self.term) > self.term:
            self.lost = f"another process took over the lease in {self.folder} while this one did not renew it"
        if self.lost:
            raise LeaseLostError(self.lost)


@contextmanager
def hold_lease(folder: str, *, lifetime_s: float = LIFETIME_S) -> Iterator[Lease]:
    """Hold the lease of a folder.

    Raises `LeaseHeldError` at the first heartbeat of another holder, for which it waits at most `lifetime_s`.
    """
    lease = _acquire(folder, lifetime_s)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_renew, args=(lease, lifetime_s, ended), daemon=True, name="lease")
    heartbeat.start()
    try:
        yield lease
    finally:
        ended.set()
        heartbeat.join()
        if not lease.lost:
            # Where it cannot be released, it ends with this process.
            with suppress(StorageError):
                storage.write_bytes(_uri(folder, lease.term), _content(released=True))


def _acquire(folder: str, lifetime_s: float) -> Lease:
    while True:
        terms = _terms(folder)
        present = max(terms, default=0)
        if present:
            _wait_for_end(folder, present, lifetime_s)
        if not storage.put_if_absent(_uri(folder, present + 1), _content()):
            continue
        if max(_terms(folder), default=0) != present + 1:  # other terms came and ended since the listing
            storage.delete_file(_uri(folder, present + 1))
            continue
        for ended in terms:
            storage.delete_file(_uri(folder, ended))
        return Lease(folder, present + 1)


def _wait_for_end(folder: str, term: int, lifetime_s: float) -> None:
    """Return when the term has ended; raise `LeaseHeldError` if its holder is alive."""
    first = _read(folder, term)
    deadline_s = time.monotonic() + lifetime_s
    while first is not None and not first["released"] and not _is_dead(first["holder"]):
        if time.monotonic() >= deadline_s:
            return
        time.sleep(lifetime_s / POLLS_PER_LIFETIME)
        if (now := _read(folder, term)) not in (first, None) and not now["released"]:
            holder = now["holder"]
            raise LeaseHeldError(
                f"process {holder['pid']} on {holder['host']} is running in {folder.rsplit('/', 1)[0]}: wait until it ends, "
                "or stop it, then run the same command again"
            )
        first = now


def _renew(lease: Lease, lifetime_s: float, ended: threading.Event) -> None:
    heartbeats = 0
    while not ended.wait(lifetime_s / HEARTBEATS_PER_LIFETIME):
        heartbeats += 1
        try:
            lease.check()
            storage.write_bytes(_uri(lease.folder, lease.term), _content(heartbeats=heartbeats))
        except LeaseLostError:
            return
        except Exception:  # noqa: S112 - while storage does not answer, the lease is held unless another process takes it
            continue


def _terms(folder: str) -> list[int]:
    try:
        names = [file.uri.rsplit("/", 1)[-1] for file in storage.list_files(folder)]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _TERM_FILE.fullmatch(name)))


def _uri(folder: str, term: int) -> str:
    return storage.join(folder, f"{term:08d}.json")


def _read(folder: str, term: int) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(_uri(folder, term)))
    except FileNotFoundError:
        return None  # a later term has replaced it
    return content


def _content(*, heartbeats: int = 0, released: bool = False) -> bytes:
    return json.dumps({"holder": _this_process(), "heartbeats": heartbeats, "released": released}).encode()


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_namespace": _pid_namespace(), "started": _start_time(pid)}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this node or container and no longer exists."""
    namespace = _pid_namespace()
    return (
        bool(namespace) and holder.get("pid_namespace") == namespace and holder["started"] != _start_time(holder["pid"])
    )


def _pid_namespace() -> str:
    """Return what makes process IDs unique: the boot of this node and the container; empty where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty if it does not exist or is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
