"""Weights to begin training with: our own checkpoints, the authors' published one, or ResNet-50 trained on ImageNet.

Files are read with `weights_only`: nothing in them can run.
"""

import io
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from microaction import storage
from microaction.model.checkpoint import CONFIG_FILE, CheckpointError, load_weights
from microaction.model.manet import MANet
from microaction.model.reference import load_reference_state

IMAGENET = "imagenet"
IMAGENET_URL = (
    "https://download.pytorch.org/models/resnet50-0676ba61.pth"  # torchvision's IMAGENET1K_V1; hash in its name
)
RESNET_CLASSIFIER = ("fc.weight", "fc.bias")  # of ImageNet's classes
REFERENCE_KEY = "backbone.conv1.conv.weight"
RESNET_KEY = "layer1.0.conv1.weight"


def load_initial_weights(model: MANet, source: str) -> None:
    """Loads weights into a model, in whichever of these layouts they come:

    - a checkpoint directory of a model of the same shape;
    - a file of the authors' published MANet (mmcv's layout);
    - a file of torchvision's ResNet-50, or "imagenet", which downloads it: the backbone alone, the rest stays as it is.

    Raises `CheckpointError`; the model is unchanged then.
    """
    if source != IMAGENET and storage.exists(storage.join(source, CONFIG_FILE)):
        load_weights(model, source)
        return
    state = _download() if source == IMAGENET else _read(source)
    nested = state.get("state_dict", state)
    names = nested if isinstance(nested, Mapping) else {}
    try:
        if REFERENCE_KEY in names:
            load_reference_state(model, state)
        elif RESNET_KEY in names:
            load_resnet_state(model, names)
        else:
            first = ", ".join(list(map(str, names))[:3]) or "none"
            raise CheckpointError(f"its names are neither MANet's nor ResNet-50's; the first are: {first}")
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def load_resnet_state(model: MANet, state: Mapping[str, Any]) -> None:
    """Loads torchvision's ResNet-50 into the backbone; squeeze-and-excitation, which it lacks, stays as it is.

    Strict but for the classifier of ImageNet's classes and for step counters. Raises `CheckpointError` that lists what does
    not fit.
    """
    ours = {name: value for name, value in model.backbone.state_dict().items() if ".se." not in name}
    given = {name: value for name, value in state.items() if name not in RESNET_CLASSIFIER}
    problems = [f"unknown: {name}" for name in given if name not in ours]
    problems += [f"missing: {name}" for name in ours if name not in given and not name.endswith("num_batches_tracked")]
    problems += [
        f"wrong shape: {name} {tuple(value.shape)}, the model has {tuple(ours[name].shape)}"
        for name, value in given.items()
        if name in ours and isinstance(value, Tensor) and value.shape != ours[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"not a ResNet-50 of this model's shape: {len(problems)} names do not fit:\n  " + "\n  ".join(problems)
        )
    model.backbone.load_state_dict(model.backbone.state_dict() | given)


def _read(source: str) -> Mapping[str, Any]:
    try:
        data = storage.read_bytes(source)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no weights at {source}: give a checkpoint directory, a .pth file, or {IMAGENET!r}"
        ) from error
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are none, or that would run code
        raise CheckpointError(
            f"{source} cannot be read as plain weights: {str(error).splitlines()[0]} (a file that holds more than tensors, "
            "numbers and texts is refused, as reading it could run code)"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source} holds a {type(content).__name__}, not a mapping of names to tensors")
    return content


def _download() -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = torch.hub.load_state_dict_from_url(
            IMAGENET_URL, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{IMAGENET_URL} cannot be downloaded ({error}); download it where there is a network, and give its path"
        ) from error
    return state
