"""Weights in the layout of MANet's authors, spelled out independently of the importer's table of rules."""

import re

import torch
from torch import Tensor

from microaction.models import MANet
from microaction.models.manet.family import UNUSED_PUBLISHED_KEYS
from tests.models.networks import randomize_weights

SMALL_DEPTHS = (2, 1, 1, 1)


def small_network() -> MANet:
    """Return a small network with initial weights."""
    return MANet(width=16, depths=SMALL_DEPTHS, embedding_dim=24)


def published_state(model: MANet) -> dict[str, Tensor]:
    """Return the weights of a small network under the published keys, with those that the published forward never uses."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        key = name
        key = re.sub(r"^backbone\.conv1\.", "backbone.conv1.conv.", key)
        key = re.sub(r"^backbone\.bn1\.", "backbone.conv1.bn.", key)
        if key.startswith("backbone.layer"):
            key = key.replace(".conv1.weight", ".conv1.conv.net.weight")
            key = re.sub(r"\.conv([23])\.weight", r".conv\1.conv.weight", key)
            key = re.sub(r"\.bn([123])\.", r".conv\1.bn.", key)
            key = key.replace(".se.squeeze.", ".conv1.conv.fcce.0.").replace(".se.excite.", ".conv1.conv.fcce.2.")
            key = key.replace(".downsample.0.", ".downsample.conv.").replace(".downsample.1.", ".downsample.bn.")
        key = re.sub(r"^action\.", "cls_head.fc_cls.", key)
        key = re.sub(r"^embedding\.hidden\.", "cls_head.fc_emb.", key)
        key = re.sub(r"^embedding\.output\.", "cls_head.fc_emb_t.", key)
        state[key] = value
    for layer, depth in enumerate(SMALL_DEPTHS, start=1):
        for block in range(depth):
            for unused in UNUSED_PUBLISHED_KEYS:
                state[f"backbone.layer{layer}.{block}.conv1.conv.{unused}"] = torch.zeros(3)
    return state


def full_published_state() -> dict[str, Tensor]:
    """Return weights of the full network under the published keys, without step counters."""
    model = MANet()
    norm = ("weight", "bias", "running_mean", "running_var")
    ours = model.state_dict()
    state: dict[str, Tensor] = {"backbone.conv1.conv.weight": ours["backbone.conv1.weight"]}
    state |= {f"backbone.conv1.bn.{key}": ours[f"backbone.bn1.{key}"] for key in norm}
    for layer, depth in enumerate((3, 4, 6, 3), start=1):
        for i in range(depth):
            block = f"backbone.layer{layer}.{i}"
            state[f"{block}.conv1.conv.net.weight"] = ours[f"{block}.conv1.weight"]
            state[f"{block}.conv1.conv.fcce.0.weight"] = ours[f"{block}.se.squeeze.weight"]
            state[f"{block}.conv1.conv.fcce.2.weight"] = ours[f"{block}.se.excite.weight"]
            state |= {f"{block}.conv{c}.conv.weight": ours[f"{block}.conv{c}.weight"] for c in (2, 3)}
            state |= {f"{block}.conv{c}.bn.{key}": ours[f"{block}.bn{c}.{key}"] for c in (1, 2, 3) for key in norm}
            state |= {f"{block}.conv1.conv.{unused}": torch.zeros(1) for unused in UNUSED_PUBLISHED_KEYS}
        first = f"backbone.layer{layer}.0.downsample"
        state[f"{first}.conv.weight"] = ours[f"{first}.0.weight"]
        state |= {f"{first}.bn.{key}": ours[f"{first}.1.{key}"] for key in norm}
    for theirs, mine in (("fc_cls", "action"), ("fc_emb", "embedding.hidden"), ("fc_emb_t", "embedding.output")):
        state |= {f"cls_head.{theirs}.{key}": ours[f"{mine}.{key}"] for key in ("weight", "bias")}
    return state


def resnet_state() -> dict[str, Tensor]:
    """Return random weights of a plain ResNet of the small shape under torchvision's keys."""
    plain = randomize_weights(MANet(width=16, depths=SMALL_DEPTHS, embedding_dim=None, se=False))
    state = {name: value.clone() for name, value in plain.backbone.state_dict().items()}
    return state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
