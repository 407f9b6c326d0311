"""Every network: its size, its outputs, its heads, its form for inference, and that it learns."""

import pytest
import torch

from microaction.models import PRESETS, Inputs, create_model
from microaction.models.inference import InferenceModel
from microaction.models.normalize import normalize_frames
from microaction.models.video_classifier import joint_logits
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from tests.models.networks import SIDE, SMALL_NETWORKS, SMALL_POSE_NETWORKS, normal_frames, small_network

STATISTICS = Preprocessing()
# Of the papers' networks with 52 classes.
NUM_PARAMETERS = {
    "manet": 32_284_252,
    "c3d": 78_208_820,
    "i3d-r50": 27_330_420,
    "slowfast-r50-4x16": 33_677_148,
    "slowfast-r50-8x8": 33_763_420,
    "tin-r50": 23_645_588,
    "video-swin-t": 27_890_458,
    "video-swin-s": 49_549_066,
    "timesformer": 121_298_740,
    "uniformer-s": 21_221_876,
    "uniformer-b": 49_634_676,
}


def test_every_preset_is_tested_at_reduced_size() -> None:
    assert SMALL_NETWORKS.keys() | SMALL_POSE_NETWORKS.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", NUM_PARAMETERS)
def test_a_network_has_as_many_parameters_as_the_papers(preset: str) -> None:
    with torch.device("meta"):
        network = create_model(preset)
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS[preset]


@pytest.mark.parametrize(
    ("preset", "millions"), [("video-swin-b", 87.7), ("vit-s", 21.9), ("vit-b", 86.3), ("vit-l", 303.9)]
)
def test_a_network_has_about_as_many_parameters_as_the_papers(preset: str, millions: float) -> None:
    with torch.device("meta"):
        network = create_model(preset)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("preset", SMALL_NETWORKS)
def test_clips_are_classified_independently_of_each_other(preset: str) -> None:
    network = small_network(preset)
    frames_BTCHW = normal_frames(network)
    with torch.inference_mode():
        together = network(Inputs(frames_BTCHW)).logits
        alone = torch.cat([network(Inputs(frames[None])).logits for frames in frames_BTCHW])
    assert together.shape == (2, 52)
    assert (together[0] - together[1]).abs().max() > 1e-4 * together.abs().max(), "clips differ"
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", SMALL_NETWORKS)
def test_the_order_of_frames_matters_but_to_tsn(preset: str) -> None:
    network = small_network(preset)
    frames_BTCHW = normal_frames(network)
    with torch.inference_mode():
        forward, backward = (network(Inputs(frames)).logits for frames in (frames_BTCHW, frames_BTCHW.flip(1)))
    difference = (forward - backward).abs().max() / forward.abs().max()
    assert difference < 1e-5 if preset == "tsn" else difference > 1e-4


@pytest.mark.parametrize("preset", SMALL_NETWORKS)
def test_wrong_numbers_of_frames_are_refused(preset: str) -> None:
    network = small_network(preset)
    with pytest.raises(ValueError, match="must be"):
        network(Inputs(normal_frames(network)[:, :-1]))


@pytest.mark.parametrize("preset", SMALL_NETWORKS)
@pytest.mark.parametrize("head", ["plain", pytest.param("hierarchical", marks=pytest.mark.slow)])
def test_the_form_for_inference_computes_the_same(preset: str, head: str) -> None:
    network = small_network(preset, head=head, joint_embedding=True, embedding_dim=12)
    generator = torch.Generator().manual_seed(1)
    size = (2, network.num_frames, SIDE, SIDE, 3)
    frames_BTHWC = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        expected = network(Inputs(normalize_frames(frames_BTHWC, STATISTICS)))
        fast = InferenceModel(network, STATISTICS, torch.float32)
        rounded_BK = InferenceModel(network, STATISTICS)(frames_BTHWC)
        torch.testing.assert_close(fast(frames_BTHWC), expected.logits, rtol=1e-3, atol=1e-4)
    assert expected.embedding is not None
    assert (rounded_BK - expected.logits).abs().max() < 0.1 * expected.logits.abs().max()
    assert rounded_BK.dtype == torch.float32
    assert {parameter.requires_grad for parameter in fast.parameters()} == {False}


@pytest.mark.parametrize("preset", SMALL_NETWORKS)
def test_every_parameter_has_a_gradient(preset: str) -> None:
    network = small_network(preset, head="hierarchical", joint_embedding=True, embedding_dim=12, dropout=0.0).train()
    outputs = network(Inputs(normal_frames(network)))
    assert outputs.embedding is not None
    (
        torch.nn.functional.cross_entropy(outputs.logits, torch.tensor([3, 40])) + outputs.embedding.square().sum()
    ).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without


def test_a_hierarchical_head_multiplies_probabilities_and_adds_cross_entropies() -> None:
    generator = torch.Generator().manual_seed(0)
    action_BK, body_BP = torch.randn(4, 52, generator=generator), torch.randn(4, len(BODY_PARTS), generator=generator)
    target_B = torch.tensor([0, 7, 30, 51])
    logits_BK = joint_logits(action_BK, body_BP)
    probability_BK = logits_BK.exp()
    torch.testing.assert_close(probability_BK.sum(dim=1), torch.ones(4))
    body_of_action = torch.tensor(BODY_PART_OF)
    for part in range(len(BODY_PARTS)):
        of_part = body_of_action == part
        torch.testing.assert_close(probability_BK[:, of_part].sum(dim=1), body_BP.softmax(dim=1)[:, part])
        within = action_BK[:, of_part].softmax(dim=1)
        torch.testing.assert_close(probability_BK[:, of_part], within * body_BP.softmax(dim=1)[:, part, None])
    body_loss = torch.nn.functional.cross_entropy(body_BP, body_of_action[target_B])
    within_losses = [
        torch.nn.functional.cross_entropy(
            action_BK[row, body_of_action == body_of_action[target]][None],
            (body_of_action[:target] == body_of_action[target]).sum()[None],
        )
        for row, target in enumerate(target_B.tolist())
    ]
    expected = body_loss + torch.stack(within_losses).mean()
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits_BK, target_B), expected)


def test_a_hierarchical_head_needs_the_52_actions() -> None:
    with pytest.raises(ValueError, match="hierarchical head knows the body parts of the 52 actions"):
        create_model("c3d", head="hierarchical", num_classes=7)


@pytest.mark.parametrize("preset", ["video-swin-t", "timesformer", "uniformer-s", "vit-s"])
def test_given_masks_decide_which_branches_are_left_out(preset: str) -> None:
    network = small_network(preset, drop_path=0.5, dropout=0.0).train()
    frames_BTCHW = normal_frames(network)
    num_branches = len(network.drop_path_rates)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eval()
    with torch.no_grad():
        ones = network(Inputs(frames_BTCHW, drop_path_mask_BL=torch.ones(2, num_branches))).logits
        none = network(Inputs(frames_BTCHW, drop_path_mask_BL=torch.zeros(2, num_branches))).logits
        torch.manual_seed(0)
        drawn = network(Inputs(frames_BTCHW)).logits
        evaluated = network.eval()(Inputs(frames_BTCHW)).logits
    torch.testing.assert_close(ones, evaluated, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(none, ones)
    assert not torch.allclose(drawn, ones)


@pytest.mark.parametrize("preset", ["video-swin-t", "timesformer", "uniformer-s", "vit-s"])
def test_checkpointed_gradients_are_equal(preset: str) -> None:
    network = small_network(preset, dropout=0.0).train()
    frames_BTCHW = normal_frames(network)
    mask_BL = torch.ones(2, len(network.drop_path_rates))
    gradients = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            network.set_gradient_checkpointing()
        network.zero_grad()
        network(Inputs(frames_BTCHW, drop_path_mask_BL=mask_BL)).logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-4, atol=1e-5)


def test_networks_of_batch_norms_refuse_gradient_checkpointing() -> None:
    with pytest.raises(ValueError, match="gradient checkpointing needs a network of blocks without batch norms"):
        small_network("i3d-r50").set_gradient_checkpointing()
