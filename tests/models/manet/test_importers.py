import re

import pytest
import torch
from torch import Tensor

from microaction.models import UNUSED_REFERENCE_KEYS, CheckpointError, MANet, load_published_state
from tests.models.manet.test_network import with_lively_weights


def small() -> MANet:
    return MANet(width=16, depths=(2, 1, 1, 1), embedding_dim=24)


def published(model: MANet) -> dict[str, Tensor]:
    """The model's weights under the published names, spelled out independently of the loader's table."""
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
    for layer, depth in enumerate((2, 1, 1, 1), start=1):
        for block in range(depth):
            for unused in UNUSED_REFERENCE_KEYS:
                state[f"backbone.layer{layer}.{block}.conv1.conv.{unused}"] = torch.zeros(3)
    return state


@pytest.mark.parametrize("nested", [False, True])
def test_published_weights_give_the_published_answers(nested: bool) -> None:
    source, target = with_lively_weights(small()), small().eval()
    state = published(source)
    load_published_state(target, {"state_dict": state, "meta": {}} if nested else state)
    frames = torch.randn(1, 8, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(target(frames), source(frames), rtol=0, atol=0)


def test_step_counters_may_be_missing() -> None:
    state = {key: value for key, value in published(small()).items() if "num_batches_tracked" not in key}
    load_published_state(small(), state)


def test_unknown_missing_and_misshapen_keys_are_all_listed_and_change_nothing() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = published(with_lively_weights(small()))
    del state["cls_head.fc_emb.bias"]
    del state["backbone.layer2.0.conv1.conv.fcce.2.weight"]
    state["cls_head.fc_new.weight"] = torch.zeros(1)
    state["backbone.layer9.0.conv1.conv.action_p2_conv1.weight"] = torch.zeros(1)
    state["cls_head.fc_cls.weight"] = torch.zeros(7, 7)
    with pytest.raises(CheckpointError) as raised:
        load_published_state(model, state)
    message = str(raised.value)
    assert "missing: embedding.hidden.bias" in message
    assert "missing: backbone.layer2.0.se.excite.weight" in message
    assert "unknown: cls_head.fc_new.weight" in message
    assert "unknown: backbone.layer9.0.conv1.conv.action_p2_conv1.weight" in message
    assert "wrong shape: cls_head.fc_cls.weight (7, 7), the model has (52, 512)" in message
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_the_full_networks_keys_are_all_there() -> None:
    """350 weights and statistics of the published file, step counters aside, and the three unused ones a block."""
    state = published_full_keys()
    model = MANet()
    load_published_state(model, state)


def published_full_keys() -> dict[str, Tensor]:
    model = MANet()
    norm = ("weight", "bias", "running_mean", "running_var")
    ours = model.state_dict()
    state: dict[str, Tensor] = {"backbone.conv1.conv.weight": ours["backbone.conv1.weight"]}
    state |= {f"backbone.conv1.bn.{key}": ours[f"backbone.bn1.{key}"] for key in norm}
    for layer, depth in enumerate((3, 4, 6, 3), start=1):
        for i in range(depth):
            theirs, mine = f"backbone.layer{layer}.{i}", f"backbone.layer{layer}.{i}"
            state[f"{theirs}.conv1.conv.net.weight"] = ours[f"{mine}.conv1.weight"]
            state[f"{theirs}.conv1.conv.fcce.0.weight"] = ours[f"{mine}.se.squeeze.weight"]
            state[f"{theirs}.conv1.conv.fcce.2.weight"] = ours[f"{mine}.se.excite.weight"]
            state |= {f"{theirs}.conv{c}.conv.weight": ours[f"{mine}.conv{c}.weight"] for c in (2, 3)}
            state |= {f"{theirs}.conv{c}.bn.{key}": ours[f"{mine}.bn{c}.{key}"] for c in (1, 2, 3) for key in norm}
            state |= {f"{theirs}.conv1.conv.{unused}": torch.zeros(1) for unused in UNUSED_REFERENCE_KEYS}
        first = f"backbone.layer{layer}.0.downsample"
        state[f"{first}.conv.weight"] = ours[f"{first}.0.weight"]
        state |= {f"{first}.bn.{key}": ours[f"{first}.1.{key}"] for key in norm}
    for theirs, mine in (("fc_cls", "action"), ("fc_emb", "embedding.hidden"), ("fc_emb_t", "embedding.output")):
        state |= {f"cls_head.{theirs}.{key}": ours[f"{mine}.{key}"] for key in ("weight", "bias")}
    return state
