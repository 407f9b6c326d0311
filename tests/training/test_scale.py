"""A run of more workers, of which a batch is no multiple: the losses of one learner, and metrics that are exact.

test_run.py has a run of two workers.
"""

from pathlib import Path

import numpy as np
import pytest

from microaction.training.run import run_training
from tests.training.runs import BATCH_SIZE, NUM_STEPS, check_metrics, losses_of, settings
from tests.training.test_run import trained_without_ray

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def test_three_workers_train_as_one_learner_without_ray(many: Path, tmp_path: Path) -> None:
    """With synchronized batch norms. Frozen ones do as well: tests/test_end_to_end.py.

    The rate is so low that the losses are well-conditioned: at ten times the rate a change of the weights by 1e-7 alone grows
    to 2e-2 of the loss in as many steps, with batch norms of such small batches.
    """
    of = settings(
        many,
        tmp_path,
        "three",
        model={"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.5},
        recipe={"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": 0.003, "batch_norm": "sync"},
        num_workers=3,
    )
    result = run_training(of)
    listed = (many / "val.txt").read_text().splitlines()
    check_metrics(Path(result.checkpoint, "validation.parquet"), listed, result.metrics)
    losses, (expected, _) = losses_of(tmp_path / "three"), trained_without_ray(of, "")
    assert len(losses) == NUM_STEPS
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert losses[-3:].mean() < 0.95 * losses[:3].mean(), "the loss fell, so that there was something to differ in"
