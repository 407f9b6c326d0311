"""The registry, in a folder and against a real S3 server."""

import hashlib
import json
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from microaction import registry, storage
from microaction.models import CheckpointError, ModelRef, inputs, load_checkpoint
from microaction.models.golden import GOLDEN_FILE
from microaction.models.normalize import normalize_frames
from microaction.registry import RegistryError, versions
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from tests.conftest import CommandResult

pytestmark = pytest.mark.cluster

FILES = ["clips.parquet", "config.json", "golden.safetensors", "model.safetensors", "version.json"]
CLIPS = [
    ("0001_a.mp4", 3, "0001", "train"),
    ("0001_b.mp4", 4, "0001", "train"),
    ("0002_a.mp4", 3, "0002", "validation"),
]


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "models")
    request.getfixturevalue("s3")
    return f"s3://results/{uuid.uuid4().hex}"


@pytest.fixture
def trained(model: str, tmp_path: Path) -> Callable[[float], str]:
    """Makes the folder of a trained checkpoint; each `bias` makes another model."""

    def make(bias: float) -> str:
        folder = tmp_path / f"trained-{bias}"
        shutil.copytree(model, folder)
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        weights["action.bias"][0] += bias
        safetensors.torch.save_file(weights, folder / "model.safetensors")
        rows = [dict(zip(TRAINING_CLIPS.names, (*clip, True), strict=True)) for clip in CLIPS]
        (folder / CLIPS_FILE).write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)))
        return str(folder)

    return make


def content_of(root: str) -> dict[str, bytes]:
    return {file.uri: storage.read_bytes(file.uri) for file in storage.list_files(root)}


def test_a_version_holds_all_that_a_model_is_and_never_changes(root: str, trained: Callable[[float], str]) -> None:
    version = registry.register(root, trained(0), name="first", notes={"why": "a test"})
    assert sorted(file.uri.rsplit("/", 1)[-1] for file in storage.list_files(f"{root}/first")) == FILES
    found = {split: (data.num_clips, data.subjects) for split, data in version.data.items()}
    assert found == {"train": (2, ["0001"]), "validation": (1, ["0002"])}
    assert version.code["microaction"]
    assert version.notes == {"why": "a test"}
    assert registry.read_clips_of(root, "first").num_rows == len(CLIPS)
    before = content_of(root)
    assert registry.register(root, trained(0.0), name="first") == version
    with pytest.raises(RegistryError, match="holds another checkpoint, and versions never change: give another name"):
        registry.register(root, trained(1), name="first")
    assert content_of(root) == before
    assert registry.list_versions(root) == [registry.read_version(root, "first")]


@pytest.mark.parametrize("num_files", range(len(FILES)))
def test_an_interrupted_registration_is_no_version_and_is_completed_later(
    root: str, trained: Callable[[float], str], num_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_if_absent, left = storage.put_if_absent, num_files

    def cut_short(uri: str, data: bytes) -> bool:
        nonlocal left
        if left == 0:
            raise ConnectionError("the node is lost")
        left -= 1
        return put_if_absent(uri, data)

    checkpoint_uri = trained(0)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_if_absent", cut_short)
        with pytest.raises(ConnectionError):
            registry.register(root, checkpoint_uri, name="first")
    with pytest.raises(RegistryError, match="no versions in"):
        registry.list_versions(root)
    with pytest.raises(RegistryError, match="no version 'first' in"):
        registry.promote(root, "first", reason="half of it is there")
    if num_files:
        with pytest.raises(RegistryError, match="holds another checkpoint"):
            registry.register(root, trained(1), name="first")
    registry.register(root, checkpoint_uri, name="first")
    registry.promote(root, "first", reason="whole")
    assert load_checkpoint(registry.resolve(f"{root}@production")).config.labels


def with_recipe(checkpoint_uri: str, recipe: dict[str, Any]) -> str:
    config = Path(checkpoint_uri, "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"recipe": recipe}))
    return checkpoint_uri


def test_a_version_tells_its_manifests_by_their_digests(trained: Callable[[float], str], tmp_path: Path) -> None:
    root, lists = str(tmp_path / "models"), {name: str(tmp_path / name) for name in ("train_list", "val_list")}
    Path(lists["train_list"]).write_bytes(b"0001_a.mp4 3\n")
    first = registry.register(root, with_recipe(trained(0), lists), name="first")
    rows = [["0001_a.mp4", 3, "0001"], ["0001_b.mp4", 4, "0001"]]
    assert first.data["train"].digest == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert first.lists == {lists["train_list"]: hashlib.sha256(b"0001_a.mp4 3\n").hexdigest()}, "the other is not there"

    def digests(*clips: tuple[object, ...]) -> list[str]:
        table = [dict(zip(TRAINING_CLIPS.names, (*clip, True), strict=True)) for clip in clips]
        other = Path(trained(len(registry.list_versions(root))))
        (other / CLIPS_FILE).write_bytes(parquet_bytes(pa.Table.from_pylist(table, schema=TRAINING_CLIPS)))
        return [split.digest for _, split in sorted(registry.register(root, str(other)).data.items())]

    train, validation = first.data["train"].digest, first.data["validation"].digest
    assert digests(*reversed(CLIPS)) == [train, validation], "the order of a list says nothing"
    corrected = digests(("0001_a.mp4", 5, "0001", "train"), *CLIPS[1:])
    renamed = digests(("0001_a.mp4", 3, None, "train"), *CLIPS[1:])
    assert len({train, corrected[0], renamed[0]}) == 3
    assert corrected[1] == renamed[1] == validation


def test_a_version_without_digests_is_refused(trained: Callable[[float], str], tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    registry.register(root, trained(0), name="first")
    uri = tmp_path / "models/first/version.json"
    before = json.loads(uri.read_text()) | {"format": 1}
    del before["data"]["train"]["digest"]
    uri.write_text(json.dumps(before))
    with pytest.raises(
        RegistryError, match=r"version\.json was written by another version of microaction: register its"
    ):
        registry.resolve(f"{root}@first")


def test_rolled_back_versions_and_pinned_ones(trained: Callable[[float], str], tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    assert registry.rolled_back(root) == []
    with pytest.raises(RegistryError, match="nothing is in production in"):
        registry.pin(f"{root}@production")
    for number in range(3):
        registry.register(root, trained(number), name=f"v{number}")
        registry.promote(root, f"v{number}", reason="newer")
        assert registry.rolled_back(root) == []
    pinned = registry.pin(f"{root}@production")
    assert pinned == f"{root}@v2"
    for version, expected in (("v1", ["v2"]), ("v0", ["v1", "v2"])):
        assert registry.rollback(root, reason="worse").version == version
        assert registry.rolled_back(root) == expected
    registry.promote(root, "v1", reason="the second look")
    assert registry.rolled_back(root) == ["v2"], "v0 was there before it"
    assert registry.pin(f"{root}@production") == f"{root}@v1"
    for other in (pinned, f"{root}@v9", f"{root}/v0", f"{tmp_path}/with@production/model"):
        assert registry.pin(other) == other


def test_production_follows_promotions_and_rollbacks_and_keeps_their_history(
    root: str, trained: Callable[[float], str]
) -> None:
    with pytest.raises(RegistryError, match="nothing is in production in"):
        registry.resolve(f"{root}@production")
    for number in range(3):
        registry.register(root, trained(number), name=f"v{number}")
        registry.promote(root, f"v{number}", reason="newer")
    assert registry.resolve(f"{root}@production") == registry.resolve(f"{root}@v2")
    assert registry.rollback(root, reason="worse").version == "v1"
    assert registry.rollback(root, reason="worse still").version == "v0"
    with pytest.raises(RegistryError, match=r"nothing was in production in .* before v0"):
        registry.rollback(root, reason="and again")
    registry.promote(root, "v2", reason="not so bad")
    assert registry.rollback(root, reason="bad").version == "v0"
    changes = registry.history(root)
    assert [change.version for change in changes] == ["v0", "v1", "v2", "v1", "v0", "v2", "v0"]
    assert [change.number for change in changes] == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(RegistryError, match="has changed meanwhile: v0 is in production since"):
        registry.promote(root, "v1", reason="decided before the rollback", after=6)


def test_of_two_simultaneous_promotions_one_wins_and_the_other_is_refused(
    root: str, trained: Callable[[float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        registry.register(root, trained(number), name=f"v{number}")
    put_if_absent, both = storage.put_if_absent, threading.Barrier(2)

    def at_once(uri: str, data: bytes) -> bool:
        both.wait()
        return put_if_absent(uri, data)

    def attempt(name: str) -> str:
        try:
            return registry.promote(root, name, reason="mine").version
        except RegistryError as error:
            return str(error)

    monkeypatch.setattr(storage, "put_if_absent", at_once)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(attempt, ["v0", "v1"]))
    winner = registry.production(root).version
    (answer,) = (answer for answer in answers if answer != winner)
    assert winner in answers
    assert f"has changed meanwhile: {winner} is in production" in answer
    assert len(registry.history(root)) == 1


@pytest.mark.parametrize("file", ["model.safetensors", "golden.safetensors", "config.json"])
def test_a_version_whose_files_were_changed_is_refused(root: str, trained: Callable[[float], str], file: str) -> None:
    registry.register(root, trained(0), name="first")
    registry.promote(root, "first", reason="the only one")
    other = trained(1)
    if file == GOLDEN_FILE:
        changed = safetensors.torch.load(storage.read_bytes(f"{root}/first/{file}"))
        changed["logits"] += 0.1
        content = safetensors.torch.save(changed)
    elif file == "config.json":
        config = json.loads(Path(other, file).read_text())
        content = json.dumps(config | {"calibration": {"temperature": 1.5}}).encode()
    else:
        content = Path(other, file).read_bytes()
    storage.write_bytes(f"{root}/first/{file}", content)
    with pytest.raises(CheckpointError, match="does not compute here what it computed when it was registered"):
        load_checkpoint(f"{root}/first")
    with pytest.raises(CheckpointError):
        registry.promote(root, "first", reason="again")


@pytest.mark.parametrize(
    ("change", "expected"),
    [("deleted", f"{GOLDEN_FILE} is missing"), ("rewritten", f"the SHA-256 of {GOLDEN_FILE} is")],
)
def test_a_version_is_not_loaded_without_its_own_golden_file(
    root: str, trained: Callable[[float], str], change: str, expected: str
) -> None:
    registry.register(root, trained(0), name="first")
    registry.promote(root, "first", reason="the only one")
    golden = f"{root}/first/{GOLDEN_FILE}"
    if change == "deleted":
        storage.delete_file(golden)
    else:  # the same numbers, so that only the digest differs
        tensors = safetensors.torch.load(storage.read_bytes(golden))
        storage.write_bytes(golden, safetensors.torch.save(tensors, {"made": "later"}))
    assert load_checkpoint(f"{root}/first").config.labels, "a folder outside of any registry"
    message = rf"first is not what was registered: {expected}.*; restore the file, or use another version"
    for name in ("production", "first"):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(registry.resolve(f"{root}@{name}"))
    with pytest.raises(CheckpointError, match=message):
        registry.promote(root, "first", reason="again")


def test_clips_that_were_changed_are_refused(trained: Callable[[float], str], tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    registry.register(root, trained(0), name="first")
    (tmp_path / "models/first" / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    with pytest.raises(RegistryError, match=r"clips.parquet has changed since it was registered"):
        registry.read_clips_of(root, "first")


def test_a_registration_is_completed_on_a_node_whose_last_bits_differ(
    trained: Callable[[float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, checkpoint_uri = str(tmp_path / "models"), trained(0)
    registry.register(root, checkpoint_uri, name="first")
    (tmp_path / "models/first/version.json").unlink()
    golden = (tmp_path / "models/first" / GOLDEN_FILE).read_bytes()
    other = safetensors.torch.load(golden)
    other["logits"] *= 1 + 1e-6
    monkeypatch.setattr(versions, "make_golden", lambda _: safetensors.torch.save(other))
    version = registry.register(root, checkpoint_uri, name="first")
    assert (tmp_path / "models/first" / GOLDEN_FILE).read_bytes() == golden
    assert version.files[GOLDEN_FILE] == hashlib.sha256(golden).hexdigest()


def test_other_code_than_the_model_was_made_with_is_noticed(
    trained: Callable[[float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "models")
    registry.register(root, trained(0), name="first")

    def channels_swapped(frames_BTHWC: torch.Tensor, *how: Any) -> torch.Tensor:
        return normalize_frames(frames_BTHWC.flip(-1), *how)

    monkeypatch.setattr(inputs, "normalize_frames", channels_swapped)
    with pytest.raises(CheckpointError, match="its logits for the golden input differ by"):
        load_checkpoint(registry.resolve(f"{root}@first"))


def test_weights_that_answer_alike_but_are_others_are_refused(trained: Callable[[float], str], tmp_path: Path) -> None:
    """The golden output would not tell a change of one unused number; the digest does."""
    root = str(tmp_path / "models")
    registry.register(root, trained(0), name="first")
    resolved = registry.resolve(f"{root}@first")
    with pytest.raises(CheckpointError, match="has changed: its digest was"):
        load_checkpoint(ModelRef(trained(1e-6), resolved.digest))


def test_what_is_no_name_or_no_model_is_refused(trained: Callable[[float], str], model: str, tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    for name in ("production", "../first", ".hidden", "a b"):
        with pytest.raises(RegistryError, match="cannot name a version"):
            registry.register(root, trained(0) if name == "production" else f"{tmp_path}/trained-0", name=name)
    with pytest.raises(RegistryError, match=r"does not say which clips it was made from \(clips.parquet is missing\)"):
        registry.register(root, model)
    with pytest.raises(CheckpointError):
        registry.register(root, str(tmp_path / "absent"))
    assert registry.resolve(f"{tmp_path}/with@sign/model") == ModelRef(f"{tmp_path}/with@sign/model", None)


def test_the_command_shows_promotes_and_rolls_back(
    trained: Callable[[float], str], tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    root = str(tmp_path / "models")
    nothing = f"no versions in {root}; `microaction registry add {root} RUN/best` adds one\n"
    assert job("registry", "list", root) == CommandResult(2, "", nothing)
    assert job("registry").returncode == 2
    assert job("registry", "add", root, trained(0), "--name", "v0") == CommandResult(0, "", "registered as v0\n")
    assert job("registry", "add", root, trained(1), "--name", "v1").returncode == 0
    assert job("registry", "promote", root, "v2").returncode == 2
    for version in ("v0", "v1"):
        promoted = job("registry", "promote", root, version, "--reason", "better")
        assert promoted.stderr.startswith(f"{version} is in production since")
    assert job("registry", "rollback", root, "--reason", "worse").stderr.startswith("v0 is in production since")
    assert json.loads(job("registry", "show", root, "production").stdout)["name"] == "v0"
    shown = job("registry", "list", root).stdout
    assert all(word in shown for word in ("v0", "v1", "rollback", "worse", "better", "promoted"))
