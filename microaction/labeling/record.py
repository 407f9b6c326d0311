"""What an output says of the run in it: `_run.json`, and whether another run may continue there."""

import json
from typing import Any

from microaction import storage
from microaction.errors import UsageError

RUN_FILE = "_run.json"
LEDGER_FORMAT = 7  # 7: people; 6: times of streams without an index, of AVI and of late video tracks


class RunError(UsageError, ValueError):
    """A run cannot start in this output, or with these settings."""


def read_record(out: str) -> dict[str, Any] | None:
    """Return the record of the run in an output; None if there is none. Raises `RunError` for one of an earlier format."""
    try:
        record: Any = json.loads(storage.read_bytes(storage.join(out, RUN_FILE)))
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise RunError(
            f"{storage.join(out, RUN_FILE)} is not the record of a run: restore it, or choose another folder"
        )
    found = record.get("identity", {}).get("format")
    if found != LEDGER_FORMAT:
        raise RunError(
            f"{out} was written by another version of microaction (format {found}, this version has {LEDGER_FORMAT}): "
            "choose another folder, or use the version that wrote it"
        )
    return record


def write_record(out: str, record: dict[str, Any]) -> None:
    """Write the record of the run in an output."""
    storage.write_bytes(storage.join(out, RUN_FILE), json.dumps(record, indent=2).encode() + b"\n")


def refuse_other_run(out: str, recorded: dict[str, Any] | None, identity: dict[str, Any]) -> None:
    """Raise `RunError` if the run recorded in an output has another identity than this one."""
    different = differences(identity if recorded is None else recorded, identity)
    if different:
        raise RunError(
            f"{out} holds another run ({different}): choose another folder, or delete this one if it is not needed"
        )


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words what of `now` is different in `recorded`; empty if nothing is."""
    differing = (name for name in now if recorded.get(name) != now[name])
    return "; ".join(f"{name}: recorded {recorded.get(name)!r}, now {now[name]!r}" for name in differing)
