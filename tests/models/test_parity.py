"""Outputs recorded from the references' own code, on weights and inputs that are derived from names.

The records are no part of the project; tests/models/test_pcan.py, test_layouts.py and manet/test_network.py stand alone.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microaction.models import Inputs, create_model, load_published
from microaction.models.pcan import PCAN, PCANLoss, PCANOutputs

PRESET_OF = {
    "c3d": "c3d",
    "i3d_r50": "i3d-r50",
    "slowfast_r50_4x16": "slowfast-r50-4x16",
    "slowfast_r50_8x8": "slowfast-r50-8x8",
    "tin_r50": "tin-r50",
    "timesformer_divst": "timesformer",
    "swin3d_tiny": "video-swin-t",
    "swin3d_small": "video-swin-s",
    "uniformer_small": "uniformer-s",
    "uniformer_base": "uniformer-b",
    "videomae_small": "vit-s",
}
INFLATED_FROM = {"i3d_r50": "resnet50_2d", "swin3d_tiny": "swin_tiny_2d", "uniformer_small": "uniformer_small_2d"}
ORDER = (
    *("rgb_action", "rgb_body", "pose_action", "pose_body", "rgb_body_calibration", "pose_body_calibration"),
    *("rgb_action_calibration", "pose_action_calibration", "rgb_tree", "pose_tree"),
)
GAINS = (
    *((".q_proj.", 3.0), (".k_proj.", 3.0), (".v_proj.", 1.0), ("attn.fc.", 1.0)),
    *((".featuredifference", 0.3), ("_lateral.", 0.5), (".fc_", 2.0), (".downsample.", 0.7)),
)

pytestmark = pytest.mark.slow


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def filled(name: str, shape: list[int]) -> torch.Tensor:
    """Return the weights that a key of the baselines' records stands for."""
    rng = generator(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        value = 0.5 + rng.random(shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("bias"):
        value = 0.05 * rng.standard_normal(shape)
    elif name.endswith(("cls_token", "pos_embed", "time_embed", "bias_table")):
        value = 0.5 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = (0.2 if "conv3.bn" in name or "bn3" in name else 1.0) * (0.5 + rng.random(shape))
    else:
        value = rng.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(value, np.float32))


def relative_error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", [*PRESET_OF, *(f"{name}_inflated" for name in INFLATED_FROM)])
def test_logits_are_the_references(name: str, shared: Path) -> None:
    folder = shared / "data/parity"
    records = np.load(folder / "baselines_parity.npz")
    if f"{name}/logits" not in records:
        pytest.skip(f"{name} is not among the records at hand")
    reference = json.loads((folder / "baselines_reference_keys.json").read_text())
    base = name.removesuffix("_inflated")
    keys = reference["keys"][base]
    if base != name:
        head = {key: shape for key, shape in keys.items() if key.startswith("cls_head")}
        keys = reference["keys"][INFLATED_FROM[base]] | head
    frames = torch.from_numpy(generator(7).standard_normal(reference["inputs"][base]).astype(np.float32))
    if base != "tin_r50":  # the others' records have channels before frames
        frames = frames.transpose(1, 2)
    network = create_model(PRESET_OF[base], num_classes=52, num_frames=frames.shape[1]).eval()
    load_published(network, {key: filled(key, shape) for key, shape in keys.items()})
    with torch.inference_mode():
        logits = network(Inputs(frames)).logits
    assert relative_error(logits, records[f"{name}/logits"]) < 1e-5


class Recorded:
    """The records of PCAN."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "data/parity"
        self.arrays = np.load(folder / "pcan_parity.npz")
        self.keys = json.loads((folder / "pcan_reference_keys.json").read_text())

    @staticmethod
    def filled(name: str, shape: list[int]) -> torch.Tensor:
        rng = generator(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            return torch.zeros(shape, dtype=torch.int64)
        if name.endswith("running_var"):
            value = 0.5 + rng.random(shape)
        elif name.endswith("running_mean"):
            value = 0.1 * rng.standard_normal(shape)
        elif name.endswith(".bn.weight"):
            value = (0.25 if name.endswith(".conv3.bn.weight") else 1.0) * (0.5 + rng.random(shape))
        elif name.endswith(".avg_f"):
            value = rng.standard_normal(shape)
        elif name.endswith("bias"):
            value = 0.05 * rng.standard_normal(shape)
        else:
            gain = next((gain for part, gain in GAINS if part in name), 1.0)
            value = rng.standard_normal(shape) * gain * np.sqrt(2.0 / np.prod(shape[1:]))
            if len(shape) == 2:
                value -= value.mean(1, keepdims=True)
        return torch.from_numpy(np.asarray(value, np.float32))

    def network(self) -> PCAN:
        state = {key: self.filled(key, shape) for key, shape in self.keys["pcan"].items()}
        for path in ("rgb", "pose"):
            key = f"cls_head.fr_coarse_{path}.spatio_cl_net.avg_f"
            state[key] = self.filled(key, [128, 7])
        network = create_model("pcan", num_classes=52, num_frames=8)
        assert isinstance(network, PCAN)
        load_published(network, state)
        return network

    @staticmethod
    def frames(seed: int, num: int, side: int) -> torch.Tensor:
        rng = generator(seed)
        own = rng.standard_normal((num, 3, 1, 1, 1)) + rng.standard_normal((num, 3, 8, 1, 1))
        coarse = rng.standard_normal((num, 3, 8, side // 16, side // 16)).repeat(16, 3).repeat(16, 4)
        values = own + coarse + 0.3 * rng.standard_normal((num, 3, 8, side, side))
        return torch.from_numpy(values.astype(np.float32)).transpose(1, 2)

    @staticmethod
    def heatmaps(seed: int, num: int, side: int) -> torch.Tensor:
        rng = generator(seed)
        scale = rng.random((num, 28, 32, 1, 1)) * rng.random((num, 28, 1, 1, 1))
        values = scale * rng.random((num, 28, 32, side, side)) ** 4
        return torch.from_numpy(values.astype(np.float32)).transpose(1, 2)

    @staticmethod
    def features(seed: int, channels: int, num_frames: int) -> torch.Tensor:
        rng = generator(seed)
        own = rng.standard_normal((48, channels, 1, 1, 1))
        values = np.maximum(own + 0.5 * rng.standard_normal((48, channels, num_frames, 3, 3)), 0)
        return torch.from_numpy(values.astype(np.float32))

    def check(self, network: PCAN, prefix: str) -> None:
        for path, stream in (("rgb", network.rgb), ("pose", network.pose)):
            for kind, found in (("body", stream.body_prototypes), ("action", stream.action_prototypes)):
                assert relative_error(found, self.arrays[f"{prefix}.{kind}_{path}"]) < 1e-5


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.getfixturevalue("shared"))


@pytest.mark.parametrize(
    ("name", "seeds", "num", "side"), [("eval224", (11, 12), 2, 224), ("eval256", (13, 14), 1, 256)]
)
def test_pcan_is_the_references(recorded: Recorded, name: str, seeds: tuple[int, int], num: int, side: int) -> None:
    if f"{name}.prob_action" not in recorded.arrays:
        pytest.skip(f"{name} is not among the records at hand")
    inputs = Inputs(recorded.frames(seeds[0], num, side), recorded.heatmaps(seeds[1], num, side // 4))
    with torch.inference_mode():
        outputs = recorded.network().eval()(inputs)
    for path, stream in (("rgb", outputs.rgb), ("pose", outputs.pose)):
        assert relative_error(stream.action_logits, recorded.arrays[f"{name}.logits_{path}"]) < 1e-5
        assert relative_error(stream.body_logits, recorded.arrays[f"{name}.logits_{path}_coarse"]) < 1e-5
    assert relative_error(outputs.action_probabilities.mean(dim=0), recorded.arrays[f"{name}.prob_action"]) < 1e-5
    assert relative_error(outputs.body_probabilities.mean(dim=0), recorded.arrays[f"{name}.prob_body"]) < 1e-5


def test_pcans_losses_and_gradients_are_the_references(recorded: Recorded) -> None:
    network = recorded.network().train()
    network.dropout.p = 0.0
    loss, empty = PCANLoss(network), torch.empty(0)
    features = recorded.features(21, 2048, 2), recorded.features(22, 512, 4)

    def terms(labels: str) -> dict[str, torch.Tensor]:
        streams = zip((network.rgb, network.pose), features, strict=True)
        rgb, pose = (stream(of, network.dropout, None) for stream, of in streams)
        target = torch.from_numpy(recorded.arrays[labels])
        return loss.terms(PCANOutputs(empty, empty, empty, rgb, pose), target)

    first = terms("head.labels")
    assert relative_error([first[name].item() for name in ORDER], recorded.arrays["head.losses"]) < 1e-6
    torch.stack(list(first.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, key in (("action", "head.grad_fc_pose"), ("action_projection", "head.grad_cl_pose")):
        gradient = network.pose.get_submodule(name).weight.grad
        assert isinstance(gradient, torch.Tensor)
        found = gradient[:, :64] if name == "action" else gradient[:8]
        assert relative_error(found, recorded.arrays[key]) < 1e-5
    recorded.check(network, "head.after1")
    second = terms("head.labels2")
    assert relative_error([second[name].item() for name in ORDER], recorded.arrays["head.losses2"]) < 1e-6
    recorded.check(network, "head.after2")


def test_a_step_of_pcans_training_is_the_references(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microaction.models.pcan.network.ATTENTION_DROPOUT", 0.0)
    network = recorded.network().train()
    network.dropout.p = 0.0
    outputs = network(Inputs(recorded.frames(31, 10, 112), recorded.heatmaps(32, 10, 28)))
    terms = PCANLoss(network).terms(outputs, torch.from_numpy(recorded.arrays["step.labels"]))
    assert relative_error([terms[name].item() for name in ORDER], recorded.arrays["step.losses"]) < 1e-6
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 40.0)
    assert relative_error(norm, recorded.arrays["step.grad_norm"]) < 1e-4
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.optim.SGD(network.parameters(), lr=0.0075, momentum=0.9, weight_decay=1e-4).step()
    after = network.state_dict()
    updates = sorted(float((after[name] - before[name]).norm()) for name, _ in network.named_parameters())
    assert relative_error(updates, sorted(recorded.arrays["step.update_norms"])) < 1e-3
    recorded.check(network, "step.after")


def test_pcans_paths_alone_are_the_references(recorded: Recorded) -> None:
    alone = {
        "rgb": Inputs(recorded.frames(41, 1, 224)),
        "pose": Inputs(torch.empty(0), recorded.heatmaps(42, 1, 56)),
    }
    for path, inputs in alone.items():
        network = create_model(f"pcan-{path}", num_classes=52).eval()
        keys = recorded.keys[f"{path}_only"]
        load_published(network, {key: recorded.filled(key, shape) for key, shape in keys.items()})
        with torch.inference_mode():
            assert relative_error(network(inputs).logits, recorded.arrays[f"{path}_only.logits"]) < 1e-5
