"""The same run with one and with more processes: the same losses, and metrics that are exact."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score

from microaction.taxonomy import BODY_PART_OF
from microaction.training.run import run_training
from tests.training.runs import BATCH_SIZE, NUM_STEPS, losses_of, settings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def train(many: Path, folder: Path, batch_norm: str, num_workers: int, num_val_clips: int) -> np.ndarray:
    """Losses of all steps of a run whose metrics are checked.

    At a rate so low that the losses are well-conditioned: at ten times the rate a change of 1e-7 of the weights alone
    grows to 2e-2 of the loss in as many steps with batch norms of such small batches.
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


def check_metrics(predictions: Path, listed: list[str], metrics: dict[str, float]) -> None:
    """The metrics are scikit-learn's on the gathered predictions, exactly; every clip is there, once, in order."""
    table = pq.read_table(predictions)
    rows = zip(table["clip"].to_pylist(), table["target"].to_pylist(), strict=True)
    assert [f"{clip} {target}" for clip, target in rows] == listed
    target_N, body = table["target"].to_numpy(), np.array(BODY_PART_OF)
    predicted_N = np.stack(table["probabilities"].to_numpy()).argmax(axis=1)
    assert metrics["action_top1"] == accuracy_score(target_N, predicted_N)
    assert metrics["body_top1"] == accuracy_score(body[target_N], body[predicted_N])
    for average in ("macro", "micro"):
        assert metrics[f"action_f1_{average}"] == f1_score(target_N, predicted_N, average=average)
        assert metrics[f"body_f1_{average}"] == f1_score(body[target_N], body[predicted_N], average=average)


def test_synchronised_batch_norms_make_any_number_of_workers_the_same_run(many: Path, tmp_path: Path) -> None:
    """Frozen ones do as well: tests/training/test_nodes.py, tests/test_end_to_end.py."""
    one, three = (train(many, tmp_path, "sync", num_workers, 5) for num_workers in (1, 3))
    np.testing.assert_allclose(three, one, rtol=1e-3)
    assert one[-3:].mean() < 0.95 * one[:3].mean(), "something was learnt, so that there was something to differ"

    local = train(many, tmp_path, "local", 2, 4)
    assert np.abs(local / one - 1).max() > 1e-3, "batch norms of each process's own clips are another run"
