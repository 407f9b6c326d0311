"""What an output says of the run in it: `_run.json`, and whether another run may go on there."""

import json
from typing import Any

from microaction import storage
from microaction.errors import UsageError

RUN_FILE = "_run.json"


class RunError(UsageError, ValueError):
    """A run cannot start, or ended without an account of every chunk."""


def read_record(out: str) -> dict[str, Any] | None:
    """The record of the run in an output; None where there is none."""
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(storage.join(out, RUN_FILE)))
    except FileNotFoundError:
        return None
    return record


def write_record(out: str, record: dict[str, Any]) -> None:
    storage.write_bytes(storage.join(out, RUN_FILE), json.dumps(record, indent=2).encode() + b"\n")


def refuse_other_run(out: str, begun: dict[str, Any] | None, identity: dict[str, Any]) -> None:
    """Raises `RunError` where the run that was begun in an output has another identity than this one."""
    different = differences(identity if begun is None else begun, identity)
    if different:
        raise RunError(
            f"{out} holds another run ({different}); give another folder, or delete this one if it is not needed"
        )


def differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    """What of `now` is otherwise `there`, in words; empty where nothing is."""
    differing = (name for name in now if there.get(name) != now[name])
    return "; ".join(f"{name}: there {there.get(name)!r}, now {now[name]!r}" for name in differing)
