"""Weights to start training with: a checkpoint of our own, published weights, or ResNet-50 trained on ImageNet."""

from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

import torch

from microaction import storage
from microaction.models.checkpoint import CONFIG_FILE, load_checkpoint, load_weights, read_config
from microaction.models.detector.detection_network import STORED_PARTS, DetectionNetwork
from microaction.models.errors import CheckpointError
from microaction.models.families import build_model, load_published
from microaction.models.importing import read_weights
from microaction.models.interface import Network
from microaction.models.mapping import HEADS

IMAGENET = "imagenet"
IMAGENET_URL = (
    "https://download.pytorch.org/models/resnet50-0676ba61.pth"  # torchvision's IMAGENET1K_V1; hash in its name
)


def load_initial_weights(model: Network, source: str) -> None:
    """Load weights into a network, in whichever of these forms they come:

    - a checkpoint directory of a network of the same shape;
    - a file of published weights in a layout that the network's family knows: a whole network, or its backbone alone; heads of
      another number of classes stay random;
    - "imagenet", which downloads torchvision's ResNet-50.

    A detector gets those of a classifier into its backbone; of another detector all, or where its configuration differs those of
    the backbone and of the first layer. Raises `CheckpointError`; the network is unchanged then.
    """
    if isinstance(model, DetectionNetwork):
        _load_into_detector(model, source)
        return
    if source != IMAGENET and storage.exists(storage.join(source, CONFIG_FILE)):
        load_weights(model, source)
        return
    state = _download() if source == IMAGENET else read_weights(source)
    try:
        load_published(model, state, any_head=True)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _load_into_detector(model: DetectionNetwork, source: str) -> None:
    is_checkpoint = source != IMAGENET and storage.exists(storage.join(source, CONFIG_FILE))
    if not is_checkpoint or read_config(source).task == "recognition":
        classifier = build_model(model.config.backbone)
        load_initial_weights(classifier, source)
        weights = {name: tensor for name, tensor in classifier.state_dict().items() if not name.startswith(HEADS)}
        model.backbone.load_state_dict(weights, strict=True)
        return
    other = load_checkpoint(source).model
    assert isinstance(other, DetectionNetwork)
    weights = other.state_dict()
    if other.config != model.config:
        weights = {name: tensor for name, tensor in weights.items() if name.startswith(STORED_PARTS)}
    try:
        model.load_state_dict(model.state_dict() | weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source} is a detector of another size: {' '.join(str(error).split())}") from error


def load_initial_paths(model: Network, rgb: str, pose: str) -> None:
    """Load the weights of PCAN's paths, trained alone, into a PCAN: checkpoint directories of pcan-rgb and pcan-pose.

    What only the whole has, such as the exchange between the paths, stays random. Raises `CheckpointError`.
    """
    from microaction.models.pcan.family import merged

    states = []
    for source, family in ((rgb, "pcan-rgb"), (pose, "pcan-pose")):
        path = load_checkpoint(source)
        if path.config.model.family != family:
            raise CheckpointError(f"{source} is a checkpoint of {path.config.model.family}, not of {family}")
        states.append(path.model.state_dict())
    try:
        _, unexpected = model.load_state_dict(merged(*states), strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"{rgb} and {pose} are paths of another size than the network: {' '.join(str(error).split())}"
        ) from error
    if unexpected:
        raise CheckpointError(f"{rgb} and {pose} are deeper than the network's paths: {unexpected[0]} has no place")


def _download() -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = torch.hub.load_state_dict_from_url(
            IMAGENET_URL, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{IMAGENET_URL} cannot be downloaded ({error}): download it where there is a network, and give its path"
        ) from error
    return state
