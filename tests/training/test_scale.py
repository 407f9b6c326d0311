"""The same run with one and with more workers: the same losses, and metrics that are exact.

test_run.py has a run of two workers that trains as one learner without Ray does.
"""

from pathlib import Path

import numpy as np
import pytest

from microaction.training.run import run_training
from tests.training.runs import BATCH_SIZE, NUM_STEPS, check_metrics, losses_of, settings

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def train(many: Path, folder: Path, batch_norm: str, num_workers: int, num_val_clips: int) -> np.ndarray:
    """Return the losses of all steps of a run whose metrics are checked.

    The rate is so low that the losses are well-conditioned: at ten times the rate a change of the weights by 1e-7 alone grows
    to 2e-2 of the loss in as many steps, with batch norms of such small batches.
    """
    name = f"{batch_norm}-{num_workers}"
    listed = [f"{i}.mp4 {i * 7 % 52}" for i in range(num_val_clips)]
    (folder / f"{name}.txt").write_text("\n".join(listed))
    recipe = {"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "batch_norm": batch_norm}
    model = {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.5}
    changes = {"val_list": f"{folder}/{name}.txt", "recipe": recipe, "model": model, "num_workers": num_workers}
    result = run_training(settings(many, folder, name, **changes))
    check_metrics(Path(result.checkpoint, "validation.parquet"), listed, result.metrics)
    losses = losses_of(folder / name)
    assert len(losses) == NUM_STEPS
    return losses


def test_sync_batch_norms_make_worker_counts_equivalent(many: Path, tmp_path: Path) -> None:
    """Frozen ones do as well: tests/training/test_nodes.py, tests/test_end_to_end.py."""
    one, three = (train(many, tmp_path, "sync", num_workers, 5) for num_workers in (1, 3))
    np.testing.assert_allclose(three, one, rtol=1e-3)
    assert one[-3:].mean() < 0.95 * one[:3].mean(), "the loss fell, so that there was something to differ in"
