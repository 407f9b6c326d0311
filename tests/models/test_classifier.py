"""Windows in, probabilities out, in batches of one size."""

from pathlib import Path

import pytest
import torch

from microaction.models import load_checkpoint
from microaction.models.classifier import Classifier, Execution
from tests.archives import write_model
from tests.models.networks import DEVICES

UNCOMPILED_FP32 = Execution("fp32", is_compiled=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_windows", [1, 4, 11])
def test_a_windows_probabilities_depend_on_its_frames_only(tmp_path: Path, device: str, num_windows: int) -> None:
    checkpoint = load_checkpoint(write_model(tmp_path, gain=200))
    generator = torch.Generator().manual_seed(num_windows)
    frames_NHWC = (6 * torch.arange(40, dtype=torch.uint8))[:, None, None, None].expand(40, 40, 40, 3).contiguous()
    windows_WT = torch.randint(0, 33, (num_windows, 1), generator=generator) + torch.arange(8)
    expected_WK = checkpoint.classify(frames_NHWC[windows_WT])
    assert num_windows == 1 or expected_WK.std(dim=0).max() > 1e-3, "probabilities differ"
    classify = Classifier(load_checkpoint(str(tmp_path), device=device), UNCOMPILED_FP32, batch_size=4)
    torch.testing.assert_close(classify(frames_NHWC, windows_WT), expected_WK, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_no_windows_give_an_empty_table_of_all_classes(tmp_path: Path, device: str) -> None:
    checkpoint = load_checkpoint(write_model(tmp_path), device=device)
    classify = Classifier(checkpoint, UNCOMPILED_FP32, batch_size=4)
    empty = classify(torch.empty(0, 40, 40, 3, dtype=torch.uint8), torch.empty(0, 8, dtype=torch.int64))
    assert empty.shape == (0, 52)
