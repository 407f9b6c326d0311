"""MANet against an independent forward pass, written from the description of the network without shortcuts."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from microaction.models import Inputs, MANet
from microaction.models.manet.network import temporal_shift
from tests.models.networks import randomize_weights

SMALL_WIDTH, SMALL_DEPTHS = 16, (1, 2, 1, 1)


def plain_forward(state: dict[str, Tensor], clip_TCHW: Tensor, depths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return logits and embedding of one clip, in float64.

    Where MANet differs from ResNet, it computes frame by frame and channel by channel.
    """
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


@pytest.mark.parametrize(("width", "depths", "size"), [(SMALL_WIDTH, SMALL_DEPTHS, 64), (64, (3, 4, 6, 3), 96)])
def test_forward_pass_equals_the_plain_one(width: int, depths: tuple[int, int, int, int], size: int) -> None:
    model = randomize_weights(MANet(width=width, depths=depths)).double()
    frames_BTCHW = torch.randn(2, 8, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        logits_BK, embedding_BD = model(Inputs(frames_BTCHW))
        for b in range(2):
            logits_K, embedding_D = plain_forward(model.state_dict(), frames_BTCHW[b], depths)
            torch.testing.assert_close(logits_BK[b], logits_K, rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(embedding_BD[b], embedding_D, rtol=1e-5, atol=1e-9)
        # In the precision that is used, relative to the magnitude of the logits.
        single_BK = model.float()(Inputs(frames_BTCHW.float())).logits
        assert (single_BK - logits_BK).norm() / logits_BK.norm() < 1e-5


def test_parameter_counts_are_the_published_ones() -> None:
    model = MANet()
    count = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(count.values()) == 32_284_252
    assert sum(n for name, n in count.items() if ".se." in name) == 7_964_672
    assert sum(n for name, n in count.items() if not name.startswith("backbone")) == 811_548
    assert sum(n for name, n in count.items() if name.startswith("backbone") and ".se." not in name) == 23_508_032


def test_tsm_and_tsn_are_manet_without_some_of_its_parts() -> None:
    tsm = MANet(width=16, depths=(1, 1, 1, 1), se=False, embedding_dim=None)
    tsn = MANet(width=16, depths=(1, 1, 1, 1), se=False, embedding_dim=None, shift=False)
    assert not [name for name in tsm.state_dict() if ".se." in name or name.startswith("embedding")]
    assert tsm.state_dict().keys() == tsn.state_dict().keys()
    randomize_weights(tsm)
    tsn.load_state_dict(tsm.state_dict())
    tsn.eval()
    frames_BTCHW = torch.randn(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    forward, backward = Inputs(frames_BTCHW), Inputs(frames_BTCHW.flip(1))
    with torch.inference_mode():
        assert tsm(forward).embedding is None
        # TSN processes frames one by one, so that their order has no effect; it has in TSM.
        torch.testing.assert_close(tsn(forward).logits, tsn(backward).logits)
        assert (tsm(forward).logits - tsm(backward).logits).abs().max() > 1e-3


def test_shift_moves_eighths_by_a_frame_and_fills_with_zeros() -> None:
    frames = torch.arange(1, 5)[:, None, None, None] * torch.ones(4, 16, 1, 1)  # 2 clips of 2 frames
    out = temporal_shift(frames, 2)[:, :, 0, 0]
    assert out[:, 0].tolist() == [2, 0, 4, 0]
    assert out[:, 2].tolist() == [0, 1, 0, 3]
    assert out[:, 4].tolist() == [1, 2, 3, 4]


def test_head_weights_start_small_and_share_one_dropout() -> None:
    model = MANet(width=16, depths=(1, 1, 1, 1))
    assert model.embedding is not None
    for linear in (model.action, model.embedding.hidden, model.embedding.output):
        assert isinstance(linear, torch.nn.Linear)
        assert linear.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert linear.bias.abs().max() == 0
    assert sum(isinstance(module, torch.nn.Dropout) for module in model.modules()) == 1


def test_wrong_shapes_are_refused_with_the_expected_ones() -> None:
    model = MANet(width=16, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"\[B, T=8, 3, H, W\]"):
        model(Inputs(torch.zeros(1, 7, 3, 32, 32)))
    with pytest.raises(ValueError, match=r"width \(20\) must be a multiple of 8"):
        MANet(width=20)
    with pytest.raises(ValueError, match="four numbers"):
        MANet(depths=(1, 2, 3))


def test_a_given_dropout_mask_replaces_the_random_one() -> None:
    model = randomize_weights(MANet(width=16, depths=(1, 1, 1, 1)))
    assert model.dropout_shape == (8, 512)
    frames_BTCHW = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nothing_dropped, all_dropped = (torch.full((2, *model.dropout_shape), value) for value in (1.0, 0.0))
    with torch.inference_mode():
        expected = model(Inputs(frames_BTCHW))
        torch.testing.assert_close(model(Inputs(frames_BTCHW, dropout_mask_BTC=nothing_dropped)), expected)
        torch.testing.assert_close(
            model(Inputs(frames_BTCHW, dropout_mask_BTC=all_dropped)).logits,
            model.action.bias.expand_as(expected.logits),
        )
