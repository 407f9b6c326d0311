"""Batch norms that use more than a worker's own clips; test_scale.py shows that workers agree."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from microaction.training.batch_norm import convert_batch_norms
from microaction.training.sync_batch_norm import SyncBatchNorm2d

CPU = torch.device("cpu")
ZERO_GRADIENTS = {"0.bias", "2.0.bias"}  # the batch norm that follows subtracts what they add: what is left is rounding
ROUNDING = 8 * torch.finfo(torch.float32).eps  # of a sum, relative to the sizes of its terms


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)))


@pytest.fixture
def group_of_two(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process whose group reports a size of two: it synchronizes with itself alone."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)


@pytest.mark.usefixtures("group_of_two")
def test_a_synchronized_batch_norm_of_one_equals_a_plain_one() -> None:
    plain, synchronized = network(), network()
    convert_batch_norms(synchronized, "sync", CPU)
    assert isinstance(synchronized.get_submodule("2.1"), SyncBatchNorm2d)
    summed = [summed_gradients(model) for model in (plain, synchronized)]
    for step in range(3):
        inputs = [torch.randn(5, 3, 9, 7, generator=torch.Generator().manual_seed(step)).requires_grad_() for _ in "12"]
        outputs = [model(x) for model, x in zip((plain, synchronized), inputs, strict=True)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
        for output in outputs:
            (output * torch.arange(output.numel()).reshape(output.shape)).sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-3, atol=1e-2)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synchronized.state_dict()[name], value)
    for (name, ours), other in zip(synchronized.named_parameters(), plain.parameters(), strict=True):
        if name in ZERO_GRADIENTS:
            for gradient, terms in ((ours.grad, summed[1][name]), (other.grad, summed[0][name])):
                assert gradient is not None
                assert gradient.abs().max() < ROUNDING * sum(terms), name
        else:
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-3, atol=1e-2, msg=name)
    plain.eval()
    synchronized.eval()
    torch.testing.assert_close(synchronized(inputs[0]), plain(inputs[0]))


def summed_gradients(model: nn.Module) -> dict[str, list[float]]:
    """Return for the bias of each convolution the sizes of the gradients that its own is the sum of: filled in by backward
    passes, a number for each."""
    sums: dict[str, list[float]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            terms = sums[f"{name}.bias"] = []

            def add(_: nn.Module, __: object, gradients: tuple[Tensor, ...], terms: list[float] = terms) -> None:
                terms.append(gradients[0].abs().sum().item())

            module.register_full_backward_hook(add)
    return sums


@pytest.mark.parametrize("mode", ["local", "sync", "frozen"])
@pytest.mark.usefixtures("group_of_two")
def test_conversion_keeps_weights_and_statistics(mode: str) -> None:
    model = network()
    model(torch.randn(4, 3, 8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convert_batch_norms(model, mode, CPU)  # type: ignore[arg-type]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_a_group_batch_norms_stay_plain() -> None:
    model = network()
    convert_batch_norms(model, "sync", CPU)
    assert type(model[1]) is nn.BatchNorm2d


@pytest.mark.usefixtures("group")
def test_in_a_group_of_one_batch_norms_stay_plain() -> None:
    model = network()
    convert_batch_norms(model, "sync", CPU)
    assert type(model[1]) is nn.BatchNorm2d
