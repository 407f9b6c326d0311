"""A registry of models: versions that never change, and which of them is in production.

    <root>/<version>/                       a checkpoint directory, its golden input and output, the clips it was made from,
                                            and version.json, which is written last: without it there is no such version
    <root>/_production/<number>.json        one change of production each; the highest number is the present one

Every file is created and never written again (object storage: `If-None-Match`). So a version can't be overwritten, and of two
changes of production at once one creates the next number and the other is told.
"""

import hashlib
import io
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from microaction import storage
from microaction.errors import UsageError
from microaction.model import Checkpoint, CheckpointError, load_checkpoint
from microaction.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from microaction.model.golden import GOLDEN_FILE, make_golden
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS
from microaction.versions import versions as code_versions

VERSION_FILE = "version.json"
PRODUCTION = "production"
POINTER_FOLDER = "_production"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DIGITS_OF_DIGEST = 12
_CHANGE = re.compile(r"(\d{8})\.json")


class RegistryError(UsageError, ValueError):
    """The registry does not hold what was asked for, or must not take what it was given; the message says what to do."""


class Split(BaseModel):
    """One side of the data that a model was made from. `digest` is the SHA-256 of its manifest: of a JSON array of its clips'
    [name, label, subject], in order."""

    model_config = ConfigDict(extra="forbid")

    num_clips: int
    subjects: list[str]
    digest: str


class Version(BaseModel):
    """`version.json`: what a version is. `files` are the SHA-256 of its files, `digest` that of the checkpoint, `notes` what
    whoever registered it had to say. `lists` are the SHA-256 of the list files that training names, as they were when it was
    registered; those that could not be read then are left out."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[2] = 2  # 2: splits have digests, and there are lists
    name: str
    created_at: str
    digest: str
    files: dict[str, str]
    data: dict[str, Split]
    lists: dict[str, str]
    metrics: dict[str, float]
    temperature: float
    code: dict[str, str]
    notes: dict[str, Any] = {}


class Change(BaseModel):
    """One change of production: `version` is in production since `at` (UTC); `reason` says why. `kind` tells a promotion from
    a return to the version before."""

    model_config = ConfigDict(extra="forbid")

    number: int
    kind: Literal["promote", "rollback"]
    version: str
    at: str
    reason: str


@dataclass(frozen=True)
class Resolved:
    """A model that was asked for by name: the checkpoint directory, and where a version says so the digest that it must have
    and the SHA-256 of its golden file."""

    uri: str
    digest: str | None
    golden_sha256: str | None = None


def resolve(model: str) -> Resolved:
    """What `ROOT@VERSION` and `ROOT@production` stand for at this moment; anything else is a checkpoint directory itself.

    Raises `RegistryError`.
    """
    root, name = _root_and_name(model)
    return Resolved(model, None) if name is None else _resolved(root, find_version(root, name))


def pin(model: str) -> str:
    """`ROOT@production` as the `ROOT@VERSION` that it stands for at this moment: what is begun with that goes on with it,
    whatever is promoted meanwhile. Anything else stays as it is. Raises `RegistryError`."""
    root, name = _root_and_name(model)
    return f"{root}@{production(root).version}" if name == PRODUCTION else model


def load_model(model: Resolved, *, device: str = "cpu") -> Checkpoint:
    """Loads a checkpoint and holds it to what its version says: that these are its weights, and that it computes what its
    golden file, which must be the registered one, says. Raises `CheckpointError`."""
    checkpoint = load_checkpoint(model.uri, device=device, golden_sha256=model.golden_sha256)
    if model.digest not in (None, checkpoint.digest):
        raise CheckpointError(f"{model.uri} is not what was registered: its files have changed; use another version")
    return checkpoint


def register(
    root: str, checkpoint_uri: str, *, name: str | None = None, notes: dict[str, Any] | None = None
) -> Version:
    """Adds a checkpoint directory, as training writes it, to the registry; `name` is by default the beginning of its digest.

    The same checkpoint again gives the version that is there; a registration that was cut short is completed. Raises
    `RegistryError` where the name is taken by another checkpoint, and `CheckpointError` where there is no usable one.
    """
    root = storage.absolute(root)
    checkpoint = load_checkpoint(checkpoint_uri)
    name = name or checkpoint.digest[:DIGITS_OF_DIGEST]
    if not NAME.fullmatch(name) or name == PRODUCTION:
        raise RegistryError(
            f"{name!r} cannot name a version: letters, digits, '.', '_' and '-', a letter or digit first, not {PRODUCTION!r}"
        )
    try:
        clips = storage.read_bytes(storage.join(checkpoint_uri, CLIPS_FILE))
    except FileNotFoundError:
        raise RegistryError(
            f"{checkpoint_uri} does not tell which clips it was made from ({CLIPS_FILE}); register the folder best/ of a "
            "training run"
        ) from None
    data, uri = _splits(clips, checkpoint_uri), storage.join(root, name)
    files = {
        WEIGHTS_FILE: storage.read_bytes(storage.join(checkpoint_uri, WEIGHTS_FILE)),
        CONFIG_FILE: storage.read_bytes(storage.join(checkpoint_uri, CONFIG_FILE)),
        CLIPS_FILE: clips,
    }
    for file, content in files.items():
        _create_same(uri, file, content)
    files[GOLDEN_FILE] = _create_golden(uri, checkpoint)
    config = checkpoint.config
    version = Version(
        name=name,
        created_at=_now(),
        digest=checkpoint.digest,
        files={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        data=data,
        lists=_list_digests(config.recipe),
        metrics=config.metrics,
        temperature=config.temperature,
        code=code_versions() | {"trained with": config.versions.get("microaction", "unknown")},
        notes=notes or {},
    )
    if not storage.create(storage.join(uri, VERSION_FILE), version.model_dump_json(indent=2).encode() + b"\n"):
        return read_version(root, name)
    return version


def list_versions(root: str) -> list[Version]:
    """All versions, the oldest first; folders without a `version.json` are none. Raises `RegistryError` if there is none."""
    root = storage.absolute(root)
    names = [name for name in storage.list_folders(root) if NAME.fullmatch(name)]
    found = [read_version(root, name) for name in names if storage.exists(storage.join(root, name, VERSION_FILE))]
    if not found:
        raise RegistryError(f"no versions in {root}; `python -m jobs.registry add {root} RUN/best` adds one")
    return sorted(found, key=lambda version: (version.created_at, version.name))


def find_version(root: str, name: str) -> Version:
    """A version by its name, or the one in production by that word. Raises `RegistryError`."""
    return read_version(root, production(root).version if name == PRODUCTION else name)


def read_version(root: str, name: str) -> Version:
    """One version. Raises `RegistryError` where there is no such one."""
    uri = storage.join(storage.absolute(root), name, VERSION_FILE)
    try:
        return Version.model_validate_json(storage.read_bytes(uri))
    except FileNotFoundError:
        raise RegistryError(
            f"no version {name!r} in {root}; `python -m jobs.registry list {root}` shows what there is"
        ) from None
    except ValidationError as error:
        raise RegistryError(
            f"{uri} does not describe a version as this code does: {error}; register its folder in another registry, or use "
            "the code that wrote it"
        ) from error


def read_clips_of(root: str, name: str) -> pa.Table:
    """The clips that a version was made from: a table of `schema.TRAINING_CLIPS`. Raises `RegistryError`."""
    version = read_version(root, name)
    uri = storage.join(storage.absolute(root), name, CLIPS_FILE)
    content = storage.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != version.files[CLIPS_FILE]:
        raise RegistryError(f"{uri} is not what was registered: it has changed; promote another version")
    return pq.read_table(io.BytesIO(content))


def history(root: str) -> list[Change]:
    """All changes of production, the oldest first."""
    folder = storage.join(storage.absolute(root), POINTER_FOLDER)
    try:
        names = [file.uri.rsplit("/", 1)[-1] for file in storage.list_files(folder)]
    except FileNotFoundError:
        return []
    numbers = sorted(int(match[1]) for name in names if (match := _CHANGE.fullmatch(name)))
    return [Change.model_validate_json(storage.read_bytes(_change_uri(root, number))) for number in numbers]


def production(root: str) -> Change:
    """The change by which production is what it is. Raises `RegistryError` where nothing is in production."""
    changes = history(root)
    if not changes:
        raise RegistryError(
            f"nothing is in production in {root}; `python -m jobs.registry promote {root} VERSION` changes that"
        )
    return changes[-1]


def taken_back(root: str) -> list[str]:
    """The versions that were first put into production after the present one was, and are there no more: by rollbacks, or
    because an older version was promoted by hand."""
    changes = history(root)
    names = list(dict.fromkeys(change.version for change in changes))
    return names[names.index(changes[-1].version) + 1 :] if changes else []


def promote(root: str, name: str, *, reason: str, after: int | None = None) -> Change:
    """Puts a version into production. With `after`, the number of the change that the decision is based on (0: none), only if
    nothing has changed since.

    Raises `RegistryError` where there is no such version, where it does not compute what it did when it was registered
    (`CheckpointError`), and where production has changed meanwhile.
    """
    load_model(_resolved(root, read_version(root, name)))
    changes = history(root)
    last = changes[-1].number if changes else 0
    if after is not None and last != after:
        raise _overtaken(root, changes[-1] if changes else None)
    return _change(root, last + 1, "promote", name, reason)


def rollback(root: str, *, reason: str) -> Change:
    """Puts the version back into production that was there before the present one. Raises `RegistryError`."""
    changes = history(root)
    before = _before_present(changes)
    if before is None:
        raise RegistryError(f"nothing was in production in {root} before {production(root).version}")
    load_model(_resolved(root, read_version(root, before)))
    return _change(root, changes[-1].number + 1, "rollback", before, reason)


def _root_and_name(model: str) -> tuple[str, str | None]:
    """The parts of `ROOT@NAME`; of anything else the whole, and None."""
    root, _, name = model.rpartition("@")
    return (root, name) if root and "/" not in name else (model, None)


def _resolved(root: str, version: Version) -> Resolved:
    return Resolved(storage.join(root, version.name), version.digest, version.files[GOLDEN_FILE])


def _before_present(changes: list[Change]) -> str | None:
    """Promotions are put on a pile, a rollback takes the topmost off."""
    pile: list[str] = []
    for change in changes:
        if change.kind == "rollback":
            pile.pop()
        elif not pile or pile[-1] != change.version:
            pile.append(change.version)
    return pile[-2] if len(pile) > 1 else None


def _change(root: str, number: int, kind: Literal["promote", "rollback"], name: str, reason: str) -> Change:
    change = Change(number=number, kind=kind, version=name, at=_now(), reason=reason)
    if not storage.create(_change_uri(root, number), change.model_dump_json(indent=2).encode() + b"\n"):
        raise _overtaken(root, production(root))
    return change


def _overtaken(root: str, present: Change | None) -> RegistryError:
    now = "nothing is" if present is None else f"{present.version} is, since {present.at} ({present.reason})"
    return RegistryError(f"production in {root} has changed meanwhile: {now}; look again, and decide anew")


def _change_uri(root: str, number: int) -> str:
    return storage.join(storage.absolute(root), POINTER_FOLDER, f"{number:08d}.json")


def _create_same(folder: str, file: str, content: bytes) -> None:
    """Creates a file; what an earlier, unfinished attempt left must be the same."""
    uri = storage.join(folder, file)
    if not storage.create(uri, content) and storage.read_bytes(uri) != content:
        raise RegistryError(f"{folder} holds another checkpoint, and versions never change; give another name")


def _create_golden(folder: str, checkpoint: Checkpoint) -> bytes:
    """Creates the golden file; one from an unfinished attempt may be another machine's, whose last bits differ."""
    uri, content = storage.join(folder, GOLDEN_FILE), make_golden(checkpoint)
    if storage.create(uri, content):
        return content
    load_checkpoint(folder)  # holds it to the golden output that is there
    return storage.read_bytes(uri)


def _splits(clips: bytes, checkpoint_uri: str) -> dict[str, Split]:
    try:
        table = pq.read_table(io.BytesIO(clips)).cast(TRAINING_CLIPS)
    except (pa.ArrowInvalid, ValueError) as error:
        raise RegistryError(
            f"{storage.join(checkpoint_uri, CLIPS_FILE)} is not what training writes: {error}"
        ) from error
    found = {}
    for name in pc.unique(table["split"]).to_pylist():
        rows = table.filter(pc.equal(table["split"], name))
        subjects = sorted(pc.unique(rows["subject"].drop_null()).to_pylist())
        found[name] = Split(num_clips=len(rows), subjects=subjects, digest=_clips_digest(rows))
    return found


def _clips_digest(clips: pa.Table) -> str:
    columns = (clips[name].to_pylist() for name in ("name", "label", "subject"))
    listed = sorted(zip(*columns, strict=True), key=lambda clip: (clip[0], clip[1], clip[2] or ""))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _list_digests(recipe: dict[str, Any]) -> dict[str, str]:
    """SHA-256 by URI of the lists that training was given, where they can be read from here."""
    found = {}
    for uri in (recipe.get("train_list"), recipe.get("val_list")):
        if isinstance(uri, str):
            with suppress(OSError):
                found[uri] = hashlib.sha256(storage.read_bytes(uri)).hexdigest()
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
