"""Batch norms that know more than a process's own clips; how processes agree is in test_scale."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from microaction.training.batch_norm import convert_batch_norms
from microaction.training.sync_batch_norm import SyncBatchNorm2d

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)))


@pytest.fixture
def pretended_group(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that takes itself for two: it synchronises with itself alone."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)


@pytest.mark.usefixtures("pretended_group")
def test_alone_a_synchronised_batch_norm_is_a_batch_norm() -> None:
    plain, synchronised = network(), network()
    convert_batch_norms(synchronised, "sync", CPU)
    assert isinstance(synchronised.get_submodule("2.1"), SyncBatchNorm2d)
    for step in range(3):
        inputs = [torch.randn(5, 3, 9, 7, generator=torch.Generator().manual_seed(step)).requires_grad_() for _ in "12"]
        outputs = [model(x) for model, x in zip((plain, synchronised), inputs, strict=True)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
        for output in outputs:
            (output * torch.arange(output.numel()).reshape(output.shape)).sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-3, atol=1e-2)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synchronised.state_dict()[name], value)
    for (name, ours), other in zip(synchronised.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-3, atol=1e-2, msg=name)
    plain.eval()
    synchronised.eval()
    torch.testing.assert_close(synchronised(inputs[0]), plain(inputs[0]))


@pytest.mark.parametrize("mode", ["local", "sync", "frozen"])
@pytest.mark.usefixtures("pretended_group")
def test_weights_and_statistics_survive_the_change(mode: str) -> None:
    model = network()
    model(torch.randn(4, 3, 8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convert_batch_norms(model, mode, CPU)  # type: ignore[arg-type]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_group_needs_no_synchronising() -> None:
    model = network()
    convert_batch_norms(model, "sync", CPU)
    assert type(model[1]) is nn.BatchNorm2d


@pytest.mark.usefixtures("group")
def test_a_group_of_one_needs_no_synchronising() -> None:
    model = network()
    convert_batch_norms(model, "sync", CPU)
    assert type(model[1]) is nn.BatchNorm2d
