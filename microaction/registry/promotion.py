"""Which version is in production, and the history of that.

    <root>/_production/<number>.json        one change of production each; the highest number is the present one

Of two concurrent changes of production one creates the next number, and the other raises `RegistryError`.
"""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from microaction import storage
from microaction.models import ModelRef, load_checkpoint
from microaction.registry.errors import RegistryError
from microaction.registry.versions import PRODUCTION, Version, now, read_version

HISTORY_FOLDER = "_production"
_CHANGE = re.compile(r"(\d{8})\.json")


class Change(BaseModel):
    """One change of production: `version` is in production since `at` (UTC); `reason` says why. `kind` distinguishes a
    promotion from a return to the version before."""

    model_config = ConfigDict(extra="forbid")

    number: int
    kind: Literal["promote", "rollback"]
    version: str
    at: str
    reason: str


def resolve(model: str) -> ModelRef:
    """Return what `ROOT@VERSION` and `ROOT@production` stand for now; anything else is the location of a checkpoint itself.

    Raises `RegistryError`.
    """
    root, name = _root_and_name(model)
    return ModelRef(model) if name is None else find_version(root, name).ref(root)


def pin(model: str) -> str:
    """Return `ROOT@production` as the `ROOT@VERSION` that it stands for now: what starts with that continues with it,
    whatever is promoted meanwhile. Anything else is returned as it is. Raises `RegistryError`."""
    root, name = _root_and_name(model)
    return f"{root}@{production(root).version}" if name == PRODUCTION else model


def find_version(root: str, name: str) -> Version:
    """Return a version by its name, or with `production` the one in production. Raises `RegistryError`."""
    return read_version(root, production(root).version if name == PRODUCTION else name)


def history(root: str) -> list[Change]:
    """Return all changes of production, the oldest first."""
    folder = storage.join(storage.absolute(root), HISTORY_FOLDER)
    try:
        names = [file.uri.rsplit("/", 1)[-1] for file in storage.list_files(folder)]
    except FileNotFoundError:
        return []
    numbers = sorted(int(match[1]) for name in names if (match := _CHANGE.fullmatch(name)))
    return [Change.model_validate_json(storage.read_bytes(_change_uri(root, number))) for number in numbers]


def production(root: str) -> Change:
    """Return the latest change of production. Raises `RegistryError` if nothing is in production."""
    changes = history(root)
    if not changes:
        raise RegistryError(
            f"nothing is in production in {root}: `microaction registry promote {root} VERSION` changes that"
        )
    return changes[-1]


def rolled_back(root: str) -> list[str]:
    """Return the versions that were first put into production after the present one was, and are no longer: through
    rollbacks, or because an older version was promoted by hand."""
    changes = history(root)
    names = list(dict.fromkeys(change.version for change in changes))
    return names[names.index(changes[-1].version) + 1 :] if changes else []


def promote(root: str, name: str, *, reason: str, after: int | None = None) -> Change:
    """Put a version into production. With `after`, the number of the change that the decision is based on (0: none), only if
    production has not changed since.

    Raises `RegistryError` where the version does not exist or production has changed meanwhile, and `CheckpointError` where
    the version does not compute what it did when it was registered.
    """
    load_checkpoint(read_version(root, name).ref(root))
    changes = history(root)
    last = changes[-1].number if changes else 0
    if after is not None and last != after:
        raise _changed_meanwhile(root, changes[-1] if changes else None)
    return _change(root, last + 1, "promote", name, reason)


def rollback(root: str, *, reason: str) -> Change:
    """Put the version back into production that was there before the present one. Raises `RegistryError`."""
    changes = history(root)
    before = _before_present(changes)
    if before is None:
        raise RegistryError(f"nothing was in production in {root} before {production(root).version}")
    load_checkpoint(read_version(root, before).ref(root))
    return _change(root, changes[-1].number + 1, "rollback", before, reason)


def _root_and_name(model: str) -> tuple[str, str | None]:
    """Return the parts of `ROOT@NAME`; of anything else the whole, and None."""
    root, _, name = model.rpartition("@")
    return (root, name) if root and "/" not in name else (model, None)


def _before_present(changes: list[Change]) -> str | None:
    """Return the version before the present one: a promotion pushes onto a stack, a rollback pops from it."""
    stack: list[str] = []
    for change in changes:
        if change.kind == "rollback":
            stack.pop()
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack[-2] if len(stack) > 1 else None


def _change(root: str, number: int, kind: Literal["promote", "rollback"], name: str, reason: str) -> Change:
    change = Change(number=number, kind=kind, version=name, at=now(), reason=reason)
    if not storage.put_if_absent(_change_uri(root, number), change.model_dump_json(indent=2).encode() + b"\n"):
        raise _changed_meanwhile(root, production(root))
    return change


def _changed_meanwhile(root: str, present: Change | None) -> RegistryError:
    state = (
        "nothing is in production"
        if present is None
        else f"{present.version} is in production since {present.at} ({present.reason})"
    )
    return RegistryError(f"production in {root} has changed meanwhile: {state}; look at it and decide again")


def _change_uri(root: str, number: int) -> str:
    return storage.join(storage.absolute(root), HISTORY_FOLDER, f"{number:08d}.json")
