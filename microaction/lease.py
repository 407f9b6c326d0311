"""A lease on a folder: at most one holder at a time, and an end of its own when the holder dies.

Terms are numbered files, and the highest number is the present one. Who wants the lease creates the next number, which only
one can; who holds it rewrites its own file again and again. A holder is dead when its process is (where that can be seen
from here), or when its file has not changed for `LIFETIME_S` by the clock of whoever looks: clocks of several machines are
never compared.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microaction import storage
from microaction.errors import InterruptedRunError, UsageError

LIFETIME_S = 30.0
BEATS_PER_LIFETIME = 4
LOOKS_PER_LIFETIME = 60
_TERM = re.compile(r"(\d{8})\.json")


class LeaseHeldError(UsageError, RuntimeError):
    """Somebody else holds the lease."""


class LeaseLostError(InterruptedRunError, RuntimeError):
    """The holder did not keep its lease alive, and somebody else took it."""


@dataclass
class Lease:
    """A term that this process holds."""

    folder: str
    term: int
    lost: str = ""

    def require(self, *, look: bool = True) -> None:
        """Raises `LeaseLostError` if the lease is no longer held. Looks for others in storage, as is right before what only
        one may do; without `look`, at what was seen the last time, some seconds ago."""
        if look and not self.lost and max(_terms(self.folder), default=self.term) > self.term:
            self.lost = f"another process took the lease in {self.folder} over while this one did not answer"
        if self.lost:
            raise LeaseLostError(self.lost)


@contextmanager
def held(folder: str, *, lifetime_s: float = LIFETIME_S) -> Iterator[Lease]:
    """Holds the lease of a folder. Raises `LeaseHeldError` as soon as its holder shows a sign of life; waits at most
    `lifetime_s` for one."""
    lease = _acquire(folder, lifetime_s)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, lifetime_s, ended), daemon=True, name="lease")
    beating.start()
    try:
        yield lease
    finally:
        ended.set()
        beating.join()
        if not lease.lost:
            storage.write_bytes(_uri(folder, lease.term), _content(released=True))


def _acquire(folder: str, lifetime_s: float) -> Lease:
    while True:
        terms = _terms(folder)
        present = max(terms, default=0)
        if present:
            _await_end(folder, present, lifetime_s)
        if not storage.create(_uri(folder, present + 1), _content()):
            continue
        if max(_terms(folder), default=0) != present + 1:  # others came and went since we looked
            storage.delete_file(_uri(folder, present + 1))
            continue
        for earlier in terms:
            storage.delete_file(_uri(folder, earlier))
        return Lease(folder, present + 1)


def _await_end(folder: str, term: int, lifetime_s: float) -> None:
    """Returns when the term has ended; raises `LeaseHeldError` when its holder lives."""
    first = _read(folder, term)
    deadline_s = time.monotonic() + lifetime_s
    while first is not None and not first["released"] and not _is_dead(first["holder"]):
        if time.monotonic() >= deadline_s:
            return
        time.sleep(lifetime_s / LOOKS_PER_LIFETIME)
        if (now := _read(folder, term)) not in (first, None) and not now["released"]:
            holder = now["holder"]
            raise LeaseHeldError(
                f"process {holder['pid']} on {holder['host']} is at work in {folder.rsplit('/', 1)[0]}; "
                "wait for its end, or stop it, and run the same command again"
            )
        first = now


def _beat(lease: Lease, lifetime_s: float, ended: threading.Event) -> None:
    beats = 0
    while not ended.wait(lifetime_s / BEATS_PER_LIFETIME):
        beats += 1
        try:
            lease.require()
            storage.write_bytes(_uri(lease.folder, lease.term), _content(beats=beats))
        except LeaseLostError:
            return
        except Exception:  # noqa: S112 - storage is away: the lease stays ours unless somebody takes it meanwhile
            continue


def _terms(folder: str) -> list[int]:
    try:
        names = [file.uri.rsplit("/", 1)[-1] for file in storage.list_files(folder)]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _TERM.fullmatch(name)))


def _uri(folder: str, term: int) -> str:
    return storage.join(folder, f"{term:08d}.json")


def _read(folder: str, term: int) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(_uri(folder, term)))
    except FileNotFoundError:
        return None  # ended and followed by a later one
    return content


def _content(*, beats: int = 0, released: bool = False) -> bytes:
    return json.dumps({"holder": _this_process(), "beats": beats, "released": released}).encode()


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "place": _place(), "started": _start_of(os.getpid())}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine, and is gone."""
    return bool(_place()) and holder["place"] == _place() and holder["started"] != _start_of(holder["pid"])


def _place() -> str:
    """What process numbers are counted in: this boot of this machine, this container; empty where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty where there is none (a zombie is none)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
