"""Versions of models: immutable checkpoint directories with a golden file, the clips that they were made from, and digests.

    <root>/<version>/                       a checkpoint directory, its golden input and output, the clips it was made from,
                                            and version.json, which is written last: without it there is no such version

Every file is created once and never written again (object storage: `If-None-Match`), so a version cannot be overwritten.
"""

import hashlib
import io
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from microaction import storage
from microaction.models import Checkpoint, ModelRef, load_checkpoint
from microaction.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, weights_bytes
from microaction.models.golden import GOLDEN_FILE, make_golden
from microaction.registry.errors import RegistryError
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.versions import versions as code_versions

VERSION_FILE = "version.json"
PRODUCTION = "production"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DIGEST_DIGITS = 12  # of the default name of a version


class Split(BaseModel):
    """One side of the data that a model was made from. `digest` is the SHA-256 of its manifest: of a JSON array of its clips'
    [name, label, subject], in order."""

    model_config = ConfigDict(extra="forbid")

    num_clips: int
    subjects: list[str]
    digest: str


class Version(BaseModel):
    """`version.json`: what a version is.

    `files` are the SHA-256 of its files, `digest` that of the checkpoint, `notes` free remarks of who registered it. `lists`
    are the SHA-256 of the list files that training names, as they were at registration; those that could not be read then are
    left out. `data` is empty for published weights, whose clips are unknown.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[3] = 3  # 3: checkpoints of format 2
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

    def ref(self, root: str) -> ModelRef:
        """Return the reference that loads exactly this version."""
        return ModelRef(storage.join(root, self.name), self.digest, self.files[GOLDEN_FILE])


def register(
    root: str, checkpoint_uri: str, *, name: str | None = None, notes: dict[str, Any] | None = None
) -> Version:
    """Add a checkpoint directory, or a file of published weights, to the registry; return its version.

    `name` is by default the beginning of the digest. Adding the same checkpoint again returns the existing version; an
    interrupted registration is completed. Raises `RegistryError` where the name belongs to another checkpoint, and
    `CheckpointError` where there is no usable one.
    """
    root = storage.absolute(root)
    checkpoint = load_checkpoint(checkpoint_uri)
    name = name or checkpoint.digest[:DIGEST_DIGITS]
    if not NAME.fullmatch(name) or name == PRODUCTION:
        raise RegistryError(
            f"{name!r} cannot name a version: use letters, digits, '.', '_' and '-', a letter or digit first, and not "
            f"{PRODUCTION!r}"
        )
    files = _files(checkpoint, checkpoint_uri)
    data, uri = _splits(files[CLIPS_FILE], checkpoint_uri), storage.join(root, name)
    for file, content in files.items():
        _create_same(uri, file, content)
    files[GOLDEN_FILE] = _create_golden(uri, checkpoint)
    config = checkpoint.config
    version = Version(
        name=name,
        created_at=now(),
        digest=checkpoint.digest,
        files={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        data=data,
        lists=_list_digests(config.recipe),
        metrics=config.metrics,
        temperature=config.temperature,
        code=code_versions() | {"trained with": config.versions.get("microaction", "unknown")},
        notes=({"origin": config.origin} if config.origin else {}) | (notes or {}),
    )
    if not storage.put_if_absent(storage.join(uri, VERSION_FILE), version.model_dump_json(indent=2).encode() + b"\n"):
        return read_version(root, name)
    return version


def list_versions(root: str) -> list[Version]:
    """Return all versions, the oldest first; folders without a `version.json` are none. Raises `RegistryError` if there are
    none."""
    root = storage.absolute(root)
    names = [name for name in storage.list_folders(root) if NAME.fullmatch(name)]
    found = [read_version(root, name) for name in names if storage.exists(storage.join(root, name, VERSION_FILE))]
    if not found:
        raise RegistryError(f"no versions in {root}; `microaction registry add {root} RUN/best` adds one")
    return sorted(found, key=lambda version: (version.created_at, version.name))


def read_version(root: str, name: str) -> Version:
    """Return one version. Raises `RegistryError` if it does not exist."""
    root = storage.absolute(root)
    uri = storage.join(root, name, VERSION_FILE)
    try:
        return Version.model_validate_json(storage.read_bytes(uri))
    except FileNotFoundError:
        raise RegistryError(
            f"no version {name!r} in {root}: `microaction registry list {root}` shows the existing ones"
        ) from None
    except ValidationError:
        raise RegistryError(
            f"{uri} was written by another version of microaction: register its checkpoint in another registry, or use the "
            "version that wrote it"
        ) from None


def read_clips_of(root: str, name: str) -> pa.Table:
    """Return the clips that a version was made from: a table of `schema.TRAINING_CLIPS`. Raises `RegistryError`."""
    version = read_version(root, name)
    uri = storage.join(storage.absolute(root), name, CLIPS_FILE)
    content = storage.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != version.files[CLIPS_FILE]:
        raise RegistryError(f"{uri} has changed since it was registered: promote another version")
    return pq.read_table(io.BytesIO(content))


def now() -> str:
    """Return the present time in UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _files(checkpoint: Checkpoint, checkpoint_uri: str) -> dict[str, bytes]:
    """Return the files of a version by name, except for the golden file."""
    if checkpoint.config.origin:  # published weights: what they were trained on is not in the file
        clips = parquet_bytes(TRAINING_CLIPS.empty_table())
        return {
            WEIGHTS_FILE: weights_bytes(checkpoint.model),
            CONFIG_FILE: checkpoint.config.model_dump_json(indent=2).encode() + b"\n",
            CLIPS_FILE: clips,
        }
    try:
        clips = storage.read_bytes(storage.join(checkpoint_uri, CLIPS_FILE))
    except FileNotFoundError:
        raise RegistryError(
            f"{checkpoint_uri} does not say which clips it was made from ({CLIPS_FILE} is missing): register the folder best/ "
            "of a training run"
        ) from None
    return {
        WEIGHTS_FILE: storage.read_bytes(storage.join(checkpoint_uri, WEIGHTS_FILE)),
        CONFIG_FILE: storage.read_bytes(storage.join(checkpoint_uri, CONFIG_FILE)),
        CLIPS_FILE: clips,
    }


def _create_same(folder: str, file: str, content: bytes) -> None:
    """Create a file; what an earlier, unfinished attempt left must be the same."""
    uri = storage.join(folder, file)
    if not storage.put_if_absent(uri, content) and storage.read_bytes(uri) != content:
        raise RegistryError(f"{folder} holds another checkpoint, and versions never change: give another name")


def _create_golden(folder: str, checkpoint: Checkpoint) -> bytes:
    """Create the golden file; one from an unfinished attempt may be another node's, whose last bits differ."""
    uri, content = storage.join(folder, GOLDEN_FILE), make_golden(checkpoint)
    if storage.put_if_absent(uri, content):
        return content
    load_checkpoint(folder)  # compares with the golden output that exists
    return storage.read_bytes(uri)


def _splits(clips: bytes, checkpoint_uri: str) -> dict[str, Split]:
    try:
        table = pq.read_table(io.BytesIO(clips)).cast(TRAINING_CLIPS)
    except (pa.ArrowInvalid, ValueError) as error:
        raise RegistryError(f"{storage.join(checkpoint_uri, CLIPS_FILE)} is not a file of training: {error}") from error
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
    """Return the SHA-256 by URI of the lists that training was given, where they can be read from here."""
    found = {}
    for uri in (recipe.get("train_list"), recipe.get("val_list")):
        if isinstance(uri, str):
            with suppress(OSError):
                found[uri] = hashlib.sha256(storage.read_bytes(uri)).hexdigest()
    return found
