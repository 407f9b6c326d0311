"""Files of published weights: read without running code, recognized by their keys, loaded as checkpoints."""

import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from microaction import storage
from microaction.models.conventions import published_preprocessing
from microaction.models.errors import CheckpointError
from microaction.models.families import build_model, find_importer, unwrap_state
from microaction.models.interface import Network
from microaction.taxonomy import ACTIONS
from microaction.versions import versions

if TYPE_CHECKING:
    from microaction.models.checkpoint import CheckpointConfig


def read_published(uri: str) -> tuple[Network, "CheckpointConfig"]:
    """Return the network of a file of published weights, and its configuration with the reference's preprocessing and labels.

    Raises `CheckpointError` with one line where the file is none that a family recognizes, or is no whole network.
    """
    from microaction.models.checkpoint import CheckpointConfig

    data = _read(uri)
    try:
        weights = unwrap_state(_load(data))
        family, importer = find_importer(weights)
        if importer.config_of is None:
            raise CheckpointError(
                f"these are weights to start training with (--init), not a whole network: {importer.description}"
            )
        try:
            config = importer.config_of(weights)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"not a whole network ({importer.description}): {error!r}") from error
        if config.num_classes != len(ACTIONS):
            raise CheckpointError(
                f"a network of {config.num_classes} classes, not of the {len(ACTIONS)} actions: train from it (--init)"
            )
        network = build_model(config)
        importer.load(network, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{uri}: {error}") from error
    return network, CheckpointConfig(
        model=config,
        preprocessing=published_preprocessing(config),
        labels=ACTIONS,
        recipe={},
        versions=versions(),
        metrics={},
        origin=f"{importer.description} ({family.name}), SHA-256 {hashlib.sha256(data).hexdigest()}",
        license=importer.license,
    )


def read_weights(uri: str) -> Mapping[str, Any]:
    """Return the content of a .pth file, read with `weights_only`. Raises `CheckpointError`."""
    data = _read(uri)
    try:
        return _load(data)
    except CheckpointError as error:
        raise CheckpointError(f"{uri}: {error}") from error


def _read(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise CheckpointError(f"no weights at {uri}: give a checkpoint directory or a .pth file") from error


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are none, or that would run code
        raise CheckpointError(
            "it cannot be read as plain weights: it is not a PyTorch file, or it holds more than tensors, numbers and texts, "
            "which is refused because reading it could run code"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a mapping of names to tensors")
    return content
