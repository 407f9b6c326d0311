"""A checkpoint is a directory: `model.safetensors` and `config.json`. Weights carry their preprocessing and their labels.

With a `golden.safetensors` beside them, as in a registry, a checkpoint is loaded only if it computes what that says. Who
knows that file's SHA-256 gets no checkpoint without it.

Nothing here unpickles: safetensors holds numbers only, and foreign files are read with `weights_only=True`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError
from torch import Tensor

from microaction import storage
from microaction.config import ModelConfig, Preprocessing
from microaction.errors import UsageError
from microaction.model.golden import GOLDEN_FILE, TOLERANCE, golden_difference
from microaction.model.manet import MANet
from microaction.model.normalize import normalize_frames

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT: Literal[1] = 1


class CheckpointError(UsageError, ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class CheckpointConfig(BaseModel):
    """`config.json`: all that is needed to rebuild the model and to know where it comes from. Logits are divided by
    `temperature` before they become probabilities."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = FORMAT
    model: ModelConfig
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    temperature: PositiveFloat = 1.0
    recipe: dict[str, Any]
    versions: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `digest` is the hexadecimal SHA-256 of the weights and of what changes their predictions."""

    model: MANet
    config: CheckpointConfig
    digest: str

    @torch.inference_mode()
    def logits(self, frames_BTHWC: Tensor) -> Tensor:
        """Logits [B, K] (float32), divided by the temperature, of uint8 RGB frames that lie on the model's device."""
        logits_BK, _ = self.model(normalize_frames(frames_BTHWC, self.config.preprocessing))
        return cast(Tensor, logits_BK.float() / self.config.temperature)

    @torch.inference_mode()
    def classify(self, frames_BTHWC: Tensor) -> Tensor:
        """Calibrated probabilities [B, K] (float32) of uint8 RGB frames that lie on the model's device."""
        return self.logits(frames_BTHWC).softmax(dim=1)


def build_model(config: ModelConfig) -> MANet:
    """A freshly initialised model of the given shape."""
    return MANet(**config.model_dump())


def save_checkpoint(model: MANet, config: CheckpointConfig, uri: str) -> None:
    """Writes the checkpoint directory; `config.json` last, so that a directory with one is whole."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    storage.write_bytes(storage.join(uri, WEIGHTS_FILE), safetensors.torch.save(weights))
    storage.write_bytes(storage.join(uri, CONFIG_FILE), config.model_dump_json(indent=2).encode() + b"\n")


def load_checkpoint(uri: str, *, device: str = "cpu", golden_sha256: str | None = None) -> Checkpoint:
    """Reads a checkpoint directory by path or URI; the model is in evaluation mode on `device`.

    Raises `CheckpointError` where the directory is not one, its config is not valid, weights and config disagree, the model
    does not give its golden output, or, with `golden_sha256`, the golden file is absent or another one.
    """
    config_uri = storage.join(uri, CONFIG_FILE)
    config_bytes, weights = _read(uri, CONFIG_FILE), _read(uri, WEIGHTS_FILE)
    try:
        config = CheckpointConfig.model_validate_json(config_bytes)
    except ValidationError as error:
        raise CheckpointError(f"{config_uri} is not a checkpoint's config: {error}") from error
    if len(config.labels) != config.model.num_classes:
        raise CheckpointError(
            f"{config_uri} names {len(config.labels)} labels for a model of {config.model.num_classes} classes"
        )
    model = build_model(config.model)
    _fill(model, weights, uri)
    checkpoint = Checkpoint(model.eval(), config, _digest(weights, config))
    _require_golden(checkpoint, uri, golden_sha256)
    model.to(device)
    return checkpoint


def load_weights(model: MANet, uri: str) -> None:
    """Loads a checkpoint directory's weights into a model of the same shape. Raises `CheckpointError`."""
    _fill(model, _read(uri, WEIGHTS_FILE), uri)


def _read(uri: str, name: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(uri, name))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{uri} is not a checkpoint directory: {error}; it must hold {CONFIG_FILE} and {WEIGHTS_FILE}, as "
            "`python -m jobs.train` writes them"
        ) from error


def _require_golden(checkpoint: Checkpoint, uri: str, sha256: str | None) -> None:
    golden_uri = storage.join(uri, GOLDEN_FILE)
    try:
        golden = storage.read_bytes(golden_uri)
    except FileNotFoundError as error:
        if sha256 is None:
            return
        raise CheckpointError(_not_as_registered(uri, f"{GOLDEN_FILE} is gone")) from error
    found = hashlib.sha256(golden).hexdigest()
    if sha256 not in (None, found):
        raise CheckpointError(_not_as_registered(uri, f"the SHA-256 of {GOLDEN_FILE} is {found}, not {sha256}"))
    try:
        difference = golden_difference(checkpoint, golden)
    except ValueError as error:
        raise CheckpointError(f"{golden_uri}: {error}") from error
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{uri} does not compute here what it computed when it was kept: its logits for the golden input differ by "
            f"{difference:.2%}; its files have changed, or versions of the code or of torch that do not fit are installed"
        )


def _not_as_registered(uri: str, what: str) -> str:
    return (
        f"{uri} is not what was registered: {what}, and nothing else tells whether the model computes what it did; put the "
        "file back, or use another version"
    )


def _fill(model: MANet, weights: bytes, uri: str) -> None:
    try:
        model.load_state_dict(safetensors.torch.load(weights), strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{storage.join(uri, WEIGHTS_FILE)} does not fit its config: {error}") from error


def _digest(weights: bytes, config: CheckpointConfig) -> str:
    """Recipe, versions and metrics are left out: they describe the weights and change no prediction."""
    relevant = config.model_dump(mode="json", include={"model", "preprocessing", "labels", "temperature"})
    digest = hashlib.sha256(weights)
    digest.update(json.dumps(relevant, sort_keys=True).encode())
    return digest.hexdigest()


def require_labels(config: CheckpointConfig, labels: Sequence[str], uri: str) -> None:
    """Raises `CheckpointError` unless the checkpoint's classes are exactly `labels`, in order."""
    if tuple(labels) != config.labels:
        raise CheckpointError(
            f"{uri} was trained for {len(config.labels)} classes that are not the {len(labels)} asked for; "
            f"its first is {config.labels[0]!r}"
        )
