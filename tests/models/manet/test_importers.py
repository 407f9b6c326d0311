"""Published weights become the same network: the authors' MANet, and torchvision's ResNet-50."""

import pytest
import torch

from microaction.models import CheckpointError, Inputs, MANet, ManetConfig, load_published
from microaction.models.manet.family import published_config
from tests.models.manet.published import full_published_state, published_state, resnet_state, small_network
from tests.models.networks import randomize_weights


@pytest.mark.parametrize("nested", [False, True])
def test_published_weights_give_the_published_outputs(nested: bool) -> None:
    source, target = randomize_weights(small_network()), small_network().eval()
    state = published_state(source)
    load_published(target, {"state_dict": state, "meta": {}} if nested else state)
    inputs = Inputs(torch.randn(1, 8, 3, 64, 64))
    with torch.inference_mode():
        torch.testing.assert_close(target(inputs), source(inputs), rtol=0, atol=0)


def test_step_counters_may_be_missing() -> None:
    state = {key: value for key, value in published_state(small_network()).items() if "num_batches_tracked" not in key}
    load_published(small_network(), state)


def test_all_keys_that_do_not_fit_are_listed_and_nothing_loaded() -> None:
    model = small_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = published_state(randomize_weights(small_network()))
    del state["cls_head.fc_emb.bias"]
    del state["backbone.layer2.0.conv1.conv.fcce.2.weight"]
    state["cls_head.fc_new.weight"] = torch.zeros(1)
    state["backbone.layer9.0.conv1.conv.action_p2_conv1.weight"] = torch.zeros(1)
    state["cls_head.fc_cls.weight"] = torch.zeros(7, 7)
    with pytest.raises(CheckpointError) as raised:
        load_published(model, state)
    message = str(raised.value)
    assert "missing: embedding.hidden.bias" in message
    assert "missing: backbone.layer2.0.se.excite.weight" in message
    assert "unknown: cls_head.fc_new.weight" in message
    assert "unknown: backbone.layer9.0.conv1.conv.action_p2_conv1.weight" in message
    assert "wrong shape: cls_head.fc_cls.weight (7, 7), the model has (52, 512)" in message
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_the_full_networks_keys_are_complete() -> None:
    """The published file has 350 weights and statistics, step counters aside, and three unused ones per block."""
    load_published(MANet(), full_published_state())


def test_the_configuration_is_derived_from_the_weights() -> None:
    assert published_config(full_published_state()) == ManetConfig()
    assert published_config(published_state(small_network())) == ManetConfig(
        width=16, depths=(2, 1, 1, 1), embedding_dim=24
    )


def test_resnet_weights_fill_the_backbone_and_nothing_else() -> None:
    target, state = small_network(), resnet_state()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    load_published(target, state)
    for name, value in target.state_dict().items():
        plain = name.removeprefix("backbone.")
        if name.startswith("backbone.") and ".se." not in name:
            assert torch.equal(value, state[plain]), name
        else:
            assert torch.equal(value, before[name]), name


def test_the_full_backbone_is_torchvisions_resnet50() -> None:
    """The names and shapes of the full network's backbone are those of torchvision's ResNet-50."""
    state = MANet().backbone.state_dict()
    assert state["layer3.5.conv3.weight"].shape == (1024, 256, 1, 1)
    assert state["layer2.0.downsample.1.running_mean"].shape == (512,)
    numbers = sum(value.numel() for name, value in state.items() if ".se." not in name and value.is_floating_point())
    batch_norm_statistics = sum(value.numel() for name, value in state.items() if ".running_" in name)
    assert numbers - batch_norm_statistics == 25_557_032 - 2_049_000, "ResNet-50 without its classifier"
