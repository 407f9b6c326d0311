"""MANet against an independent forward, written plainly from the description of the network."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from microaction.models import MANet
from microaction.models.manet.network import temporal_shift

SMALL_WIDTH, SMALL_DEPTHS = 16, (1, 2, 1, 1)


def plain_forward(state: dict[str, Tensor], clip_TCHW: Tensor, depths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One clip, frame by frame and channel by channel where the network is special; float64 throughout."""
    T = clip_TCHW.shape[0]

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / torch.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]

    x = functional.conv2d(clip_TCHW, state["backbone.conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(norm(x, "backbone.bn1").clamp(min=0), 3, 2, 1)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            name = f"backbone.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            residual = x
            if block == 0:
                residual = functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                residual = norm(residual, f"{name}.downsample.1")
            excited = []
            for frame in x:
                pooled = frame.mean(dim=(1, 2))
                hidden = (state[f"{name}.se.squeeze.weight"] @ pooled).clamp(min=0)
                gate = 1 / (1 + torch.exp(-(state[f"{name}.se.excite.weight"] @ hidden)))
                excited.append(frame * gate[:, None, None])
            eighth = x.shape[1] // 8
            shifted = []
            for t in range(T):
                frame = excited[t].clone()
                frame[:eighth] = excited[t + 1][:eighth] if t + 1 < T else 0
                frame[eighth : 2 * eighth] = excited[t - 1][eighth : 2 * eighth] if t > 0 else 0
                shifted.append(frame)
            out = functional.conv2d(torch.stack(shifted), state[f"{name}.conv1.weight"])
            out = norm(out, f"{name}.bn1").clamp(min=0)
            out = functional.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            out = norm(out, f"{name}.bn2").clamp(min=0)
            out = norm(functional.conv2d(out, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            x = (out + residual).clamp(min=0)
    features = x.mean(dim=(2, 3))
    logits, embeddings = [], []
    for feature in features:
        logits.append(state["action.weight"] @ feature + state["action.bias"])
        hidden = torch.tanh(state["embedding.hidden.weight"] @ feature + state["embedding.hidden.bias"])
        embeddings.append(state["embedding.output.weight"] @ hidden + state["embedding.output.bias"])
    return torch.stack(logits).mean(dim=0), torch.stack(embeddings).mean(dim=0)


def with_lively_weights(model: MANet, seed: int = 0) -> MANet:
    """Random weights of ordinary size everywhere: the initial ones would hide most of the network behind zeros."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) / math.sqrt(value[0].numel()))
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + ("bn" in name and "weight" in name))
    return model.eval()


@pytest.mark.parametrize(("width", "depths", "size"), [(SMALL_WIDTH, SMALL_DEPTHS, 64), (64, (3, 4, 6, 3), 96)])
def test_forward_equals_the_plain_one(width: int, depths: tuple[int, int, int, int], size: int) -> None:
    model = with_lively_weights(MANet(width=width, depths=depths)).double()
    frames_BTCHW = torch.randn(2, 8, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        logits_BK, embedding_BD = model(frames_BTCHW)
        for b in range(2):
            logits_K, embedding_D = plain_forward(model.state_dict(), frames_BTCHW[b], depths)
            torch.testing.assert_close(logits_BK[b], logits_K, rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(embedding_BD[b], embedding_D, rtol=1e-5, atol=1e-9)
        # In the precision that is used, relative to the size of the answer.
        single, _ = model.float()(frames_BTCHW.float())
        assert (single - logits_BK).norm() / logits_BK.norm() < 1e-5


def test_parameter_counts_are_the_published_ones() -> None:
    model = MANet()
    count = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(count.values()) == 32_284_252
    assert sum(n for name, n in count.items() if ".se." in name) == 7_964_672
    assert sum(n for name, n in count.items() if not name.startswith("backbone")) == 811_548
    assert sum(n for name, n in count.items() if name.startswith("backbone") and ".se." not in name) == 23_508_032


def test_without_se_and_embedding_it_is_tsm_and_without_shift_too_tsn() -> None:
    tsm = MANet(width=16, depths=(1, 1, 1, 1), se=False, embedding_dim=None)
    tsn = MANet(width=16, depths=(1, 1, 1, 1), se=False, embedding_dim=None, shift=False)
    assert not [name for name in tsm.state_dict() if ".se." in name or name.startswith("embedding")]
    assert tsm.state_dict().keys() == tsn.state_dict().keys()
    with_lively_weights(tsm)
    tsn.load_state_dict(tsm.state_dict())
    tsn.eval()
    frames = torch.randn(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backwards = frames.flip(1)
    with torch.inference_mode():
        assert tsm(frames)[1] is None
        # TSN takes frames one by one, so their order is nothing to it; TSM sees the order.
        torch.testing.assert_close(tsn(frames)[0], tsn(backwards)[0])
        assert (tsm(frames)[0] - tsm(backwards)[0]).abs().max() > 1e-3


def test_shift_moves_eighths_by_one_frame_and_fills_with_zeros() -> None:
    frames = torch.arange(1, 5)[:, None, None, None] * torch.ones(4, 16, 1, 1)  # 2 clips of 2 frames
    out = temporal_shift(frames, 2)[:, :, 0, 0]
    assert out[:, 0].tolist() == [2, 0, 4, 0]
    assert out[:, 2].tolist() == [0, 1, 0, 3]
    assert out[:, 4].tolist() == [1, 2, 3, 4]


def test_head_starts_small_and_with_one_dropout_mask_for_both_branches() -> None:
    model = MANet(width=16, depths=(1, 1, 1, 1))
    assert model.embedding is not None
    for linear in (model.action, model.embedding.hidden, model.embedding.output):
        assert isinstance(linear, torch.nn.Linear)
        assert linear.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert linear.bias.abs().max() == 0
    assert sum(isinstance(module, torch.nn.Dropout) for module in model.modules()) == 1


def test_wrong_shapes_say_what_is_expected() -> None:
    model = MANet(width=16, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"\[B, T=8, 3, H, W\]"):
        model(torch.zeros(1, 7, 3, 32, 32))
    with pytest.raises(ValueError, match=r"width \(20\) must be a multiple of 8"):
        MANet(width=20)
    with pytest.raises(ValueError, match="four numbers"):
        MANet(depths=(1, 2, 3))
