"""PCAN: its size, its two paths, its prototypes and its loss against a plainly written one."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microaction.models import Inputs, create_model, load_checkpoint, load_published
from microaction.models.pcan import PCAN, PCANLoss, PCANOutputs
from microaction.models.pcan.family import merged
from microaction.models.pcan.loss import ACTION_SCALES, BODY_SCALES
from microaction.models.pcan.network import StreamOutputs
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from tests.models.networks import randomize_weights

SMALL = {"rgb_width": 8, "pose_width": 8, "rgb_depths": (1, 1, 1, 1), "pose_depths": (1, 1, 1), "num_keypoints": 5}
BODY = torch.tensor(BODY_PART_OF)


def small_pcan() -> PCAN:
    network = create_model("pcan", num_frames=4, **SMALL)
    assert isinstance(network, PCAN)
    return randomize_weights(network)


def inputs_of(num_clips: int = 3, seed: int = 1) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(num_clips, 4, 3, 64, 64, generator=generator)
    return Inputs(frames, torch.rand(num_clips, 16, 5, 16, 16, generator=generator))


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(parameter.numel() for parameter in create_model(name).parameters())
            for name in ("pcan", "pcan-rgb", "pcan-pose")
        }
    assert sizes == {"pcan": 39_118_262, "pcan-rgb": 31_741_044, "pcan-pose": 2_038_004}


def test_probabilities_are_means_over_both_paths() -> None:
    network = small_pcan()
    with torch.inference_mode():
        outputs = network(inputs_of())
        rgb, pose = (stream.action_logits.softmax(dim=1) for stream in (outputs.rgb, outputs.pose))
        torch.testing.assert_close(outputs.action_probabilities, (rgb + pose) / 2)
        torch.testing.assert_close(outputs.logits.softmax(dim=1), outputs.action_probabilities)
    assert outputs.body_probabilities.shape == (3, len(BODY_PARTS))
    torch.testing.assert_close(outputs.body_probabilities.sum(dim=1), torch.ones(3))


def test_clips_are_classified_independently_of_each_other() -> None:
    network, inputs = small_pcan(), inputs_of()
    assert inputs.heatmaps_BTKHW is not None
    with torch.inference_mode():
        together = network(inputs).logits
        alone = [
            network(Inputs(frames[None], heatmaps[None])).logits
            for frames, heatmaps in zip(inputs.frames_BTCHW, inputs.heatmaps_BTKHW, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_both_inputs_matter_to_both_paths() -> None:
    network, inputs = small_pcan(), inputs_of()
    other = inputs_of(seed=2)
    with torch.inference_mode():
        before = network(inputs)
        for changed in (
            inputs._replace(frames_BTCHW=other.frames_BTCHW),
            inputs._replace(heatmaps_BTKHW=other.heatmaps_BTKHW),
        ):
            after = network(changed)
            assert not torch.allclose(after.rgb.action_logits, before.rgb.action_logits)
            assert not torch.allclose(after.pose.action_logits, before.pose.action_logits)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (Inputs(torch.zeros(1, 4, 3, 64, 64)), r"heatmaps of shape None must be \[B, T=16, K=5, H, W\]"),
        (
            Inputs(torch.zeros(1, 3, 3, 64, 64), torch.zeros(1, 16, 5, 16, 16)),
            r"frames of shape .* must be \[B, T=4, 3, H, W\]",
        ),
        (Inputs(torch.zeros(1, 4, 3, 64, 64), torch.zeros(1, 16, 28, 16, 16)), "must be .* K=5"),
    ],
)
def test_other_shapes_are_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_pcan()(inputs)


def plain_terms(
    outputs: StreamOutputs, prototypes: dict[str, Tensor], target: list[int]
) -> tuple[list[float], dict[str, Tensor]]:
    """Return a path's five terms and the prototypes afterwards, sample by sample and class by class."""
    action, body = outputs.action_logits, outputs.body_logits
    num = len(target)
    found, found_body = action.argmax(dim=1).tolist(), body.argmax(dim=1).tolist()
    true_body = [BODY_PART_OF[label] for label in target]
    right = [a == b for a, b in zip(found, target, strict=True)]
    body_right = [a == b for a, b in zip(found_body, true_body, strict=True)]

    def cross_entropy(scores: Tensor, label: int) -> float:
        return math.log(scores.double().exp().sum().item()) - scores[label].item()

    def moved(old: Tensor, features: Tensor, labels: list[int], is_true: list[bool]) -> Tensor:
        new = old.clone()
        for k in range(old.shape[1]):
            members = [features[n] for n in range(num) if is_true[n] and labels[n] == k]
            if members:
                new[:, k] = 0.9 * old[:, k] + 0.1 * torch.stack(members).mean(dim=0)
        return new

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    def calibrated(
        logits: Tensor,
        features: Tensor,
        new: Tensor,
        labels: list[int],
        sets: list[tuple[list[int], list[bool], float]],
        scales: tuple[float, ...],
    ) -> float:
        total = 0.0
        for (classes, members, sign), scale in zip(sets, scales, strict=True):
            for n in range(num):
                scores = torch.tensor([cosine(new[:, k], features[n]) for k in range(new.shape[1])])
                own = labels[n]
                group = [features[m] for m in range(num) if members[m] and classes[m] == own]
                if group:
                    center = torch.stack(group).sum(dim=0)
                    doubt = 1 - float(logits[n].softmax(dim=0)[own])
                    scores[own] += 0.125 * doubt * (sign * cosine(center, features[n]) - 1)
                total += cross_entropy(scale * scores / 0.125, own) / num
        return total

    after = {
        "body": moved(prototypes["body"], outputs.body_features, true_body, body_right),
        "action": moved(
            prototypes["action"],
            outputs.action_features,
            target,
            [a and b for a, b in zip(right, body_right, strict=True)],
        ),
    }
    body_sets = [
        (true_body, [not each for each in body_right], 1.0),
        (found_body, [not each for each in body_right], -1.0),
    ]
    pairs = list(zip(right, body_right, strict=True))
    action_sets = [
        (target, [not a and b for a, b in pairs], 1.0),
        (target, [a and not b for a, b in pairs], 1.0),
        (target, [not a and not b for a, b in pairs], 1.0),
        (found, [not a for a in right], -1.0),
    ]
    diversity = math.sqrt(
        sum(cosine(after["action"][:, i], after["action"][:, j]) ** 2 for i in range(52) for j in range(52))
    )
    tree = 0.0
    for n, label in enumerate(target):
        states = [float(x.sigmoid()) for x in body[n]]
        states += [float(body[n, BODY_PART_OF[k]].sigmoid() + action[n, k].sigmoid()) for k in range(52)]
        tree += cross_entropy(torch.tensor(states), 7 + label) / num
    terms = [
        sum(cross_entropy(action[n], target[n]) for n in range(num)) / num,
        sum(cross_entropy(body[n], true_body[n]) for n in range(num)) / num,
        calibrated(body, outputs.body_features, after["body"], true_body, body_sets, BODY_SCALES) / 5,
        (calibrated(action, outputs.action_features, after["action"], target, action_sets, ACTION_SCALES) + diversity)
        / 5,
        tree,
    ]
    return terms, after


def stream_outputs(seed: int, target: Tensor) -> StreamOutputs:
    """Return outputs of which about half are right, so that no kind of sample is missing."""
    generator = torch.Generator().manual_seed(seed)
    num = len(target)
    action, body = torch.randn(num, 52, generator=generator), torch.randn(num, len(BODY_PARTS), generator=generator)
    action[torch.arange(num), target] += 5 * (torch.rand(num, generator=generator) < 0.5)
    body[torch.arange(num), BODY[target]] += 3 * (torch.rand(num, generator=generator) < 0.5)
    return StreamOutputs(
        action, body, torch.randn(num, 256, generator=generator), torch.randn(num, 128, generator=generator)
    )


def test_the_loss_equals_the_plain_one_and_moves_the_prototypes() -> None:
    network = small_pcan().train()
    target = torch.tensor([0, 1, 1, 5, 5, 6, 30, 30, 31, 51, 51, 11, 12, 12])
    rgb, pose = stream_outputs(1, target), stream_outputs(2, target)
    empty = torch.empty(0)
    loss = PCANLoss(network)
    for _ in range(2):
        expected, after = [], []
        for stream, outputs in ((network.rgb, rgb), (network.pose, pose)):
            prototypes = {"body": stream.body_prototypes.clone(), "action": stream.action_prototypes.clone()}
            terms, moved = plain_terms(outputs, prototypes, target.tolist())
            expected += terms
            after.append(moved)
        found = loss.terms(PCANOutputs(empty, empty, empty, rgb, pose), target)
        torch.testing.assert_close(torch.stack(list(found.values())), torch.tensor(expected), rtol=1e-4, atol=1e-5)
        for stream, moved in zip((network.rgb, network.pose), after, strict=True):
            torch.testing.assert_close(stream.body_prototypes, moved["body"], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(stream.action_prototypes, moved["action"], rtol=1e-5, atol=1e-6)


def test_the_loss_trains_every_parameter() -> None:
    network = small_pcan().train()
    loss = PCANLoss(network)(network(inputs_of(6)), torch.tensor([0, 5, 11, 24, 32, 48]))
    loss.backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    assert not any(name.endswith("prototypes") for name, _ in network.named_parameters())
    assert {name for name in network.state_dict() if name.endswith("prototypes")} == {
        f"{path}.{kind}_prototypes" for path in ("rgb", "pose") for kind in ("action", "body")
    }


def test_given_masks_replace_random_dropout() -> None:
    network = small_pcan().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eval()
    inputs = inputs_of()
    assert network.dropout_shape is not None
    masks = {
        "dropout_mask_BTC": torch.ones(3, *network.dropout_shape),
        "drop_path_mask_BL": torch.ones(3, len(network.drop_path_rates)),
    }
    with torch.no_grad():
        first, second = (network(inputs._replace(**masks)).rgb.action_logits for _ in range(2))
        drawn = network(inputs).rgb.action_logits
    assert torch.equal(first, second)
    assert not torch.allclose(first, drawn)


def test_merged_paths_begin_as_they_were_trained() -> None:
    """Weights for exchanged channels are zero, so only the cross-attention tells the whole from its parts."""
    rgb = randomize_weights(create_model("pcan-rgb", num_frames=4, width=8, depths=(1, 1, 1, 1)))
    pose = randomize_weights(create_model("pcan-pose", num_frames=16, width=8, depths=(1, 1, 1), num_keypoints=5))
    network = small_pcan()
    for module in network.backbone.cross_attention:
        for layer in (module.to_rgb, module.to_pose):
            assert isinstance(layer, torch.nn.Module)
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
    found = network.load_state_dict(merged(rgb.state_dict(), pose.state_dict()), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith(("backbone.to_", "backbone.cross", "rgb.", "pose.")) for name in found.missing_keys)
    for stream in (network.rgb, network.pose):
        stream.rectification = 0.0
    inputs = inputs_of()
    with torch.inference_mode():
        outputs = network(inputs)
        torch.testing.assert_close(outputs.rgb.action_logits, rgb(inputs).logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs.pose.action_logits, pose(inputs).logits, rtol=1e-4, atol=1e-5)


def test_body_prototypes_may_be_missing_in_published_weights() -> None:
    network = create_model("pcan", num_frames=4, **SMALL)
    assert isinstance(network, PCAN)
    own = network.rgb.body_prototypes.clone()
    state = published_state(small_pcan())
    assert not any("coarse" in key and key.endswith("avg_f") for key in state)
    load_published(network, {"state_dict": state})
    assert torch.equal(network.rgb.body_prototypes, own)
    assert torch.equal(network.pose.action_prototypes, state["cls_head.fr_pose.spatio_cl_net.avg_f"])


def published_state(network: PCAN) -> dict[str, Tensor]:
    """Return a network's weights under the published keys, spelled out independently of the importer's rules."""
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("rgb", "pose"):
            path = parts[0]
            if name.endswith("body_prototypes"):
                continue
            key = {
                "action": f"cls_head.fc_{path}",
                "body": f"cls_head.fc_{path}_coarse",
                "action_projection": f"cls_head.fr_{path}.spatio_cl_net.cl_fc",
                "body_projection": f"cls_head.fr_coarse_{path}.spatio_cl_net.cl_fc",
                "action_prototypes": f"cls_head.fr_{path}.spatio_cl_net.avg_f",
            }[parts[1]]
            state[".".join([key, *parts[2:]])] = value
        elif parts[1] == "to_rgb":
            state[f"backbone.rgb_path.layer{int(parts[2]) + 2}_lateral.conv.weight"] = value
        elif parts[1] == "to_pose":
            state[f"backbone.pose_path.layer{int(parts[2]) + 1}_lateral.{'.'.join(parts[3:])}"] = value
        elif parts[1] == "cross_attention":
            part = {"rgb_tokens": "conv1", "pose_tokens": "conv2", "to_rgb": "conv4", "to_pose": "conv5"}
            part |= {"rgb_attn": "rgb_cross_attn", "pose_attn": "skt_cross_attn"}
            state[".".join([f"backbone.featuredifference{int(parts[2]) + 2}", part[parts[3]], *parts[4:]])] = value
        else:
            last = parts[-2]
            if last.startswith(("conv", "bn")):
                layer = f"conv{last[-1]}.{'conv' if last.startswith('conv') else 'bn'}"
                state[".".join([*parts[:-2], layer, parts[-1]])] = value
            else:  # downsample
                state[".".join([*parts[:-2], "conv" if last == "0" else "bn", parts[-1]])] = value
    return state


def test_published_weights_of_pcan_are_a_checkpoint(tmp_path: Path) -> None:
    network, path = small_pcan(), tmp_path / "pcan.pth"
    torch.save({"state_dict": published_state(network)}, path)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.config.needs_skeletons
    pixels = checkpoint.config.preprocessing
    assert (pixels.fit, pixels.sampling, pixels.side, pixels.views) == ("people", "bins", 256, 10)
    with pytest.raises(ValueError, match="the network sees skeletons beside the frames"):
        checkpoint.classify(torch.zeros(1, checkpoint.config.num_sampled, 64, 64, 3, dtype=torch.uint8))
    frames_BTHWC = torch.zeros(1, checkpoint.config.num_sampled, 64, 64, 3, dtype=torch.uint8)
    said = checkpoint.predict(frames_BTHWC, torch.rand(1, 2, checkpoint.config.num_pose_sampled, 5, 3))
    assert said.body_probabilities is not None
    torch.testing.assert_close(said.body_probabilities.sum(dim=1), torch.ones(1))
    torch.testing.assert_close(said.logits.exp().sum(dim=1), torch.ones(1))
