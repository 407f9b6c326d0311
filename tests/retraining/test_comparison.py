"""What both models are compared on, and where the candidate's golden output is computed."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microaction.distributed.waiting import NodesUnavailableError
from microaction.evaluation.report import predictions_table
from microaction.retraining.comparison import parity_for_labeling, read_by_both
from microaction.retraining.settings import RetrainSettings

pytestmark = pytest.mark.cluster


def test_models_are_compared_on_clips_that_both_could_read() -> None:
    def predictions(*clips: tuple[str, int, float]) -> pa.Table:
        names, targets, scores = zip(*clips, strict=True)
        file = predictions_table(names, np.array([[score, 1 - score] for score in scores]), np.array(targets))
        return pq.read_table(pa.BufferReader(file))

    ours = predictions(("b", 1, 0.1), ("a", 0, 0.2), ("c", 1, 0.3))
    theirs = predictions(("d", 1, 0.9), ("a", 0, 0.8), ("c", 1, 0.7))
    found = [table.to_pydict() for table in read_by_both(ours, theirs)]
    assert [table["clip"] for table in found] == [["a", "c"], ["a", "c"]]
    assert [table["target"] for table in found] == [[0, 1], [0, 1]]
    scores = [[first for first, _ in table["probabilities"]] for table in found]
    assert scores == [pytest.approx([0.2, 0.3]), pytest.approx([0.8, 0.7])]


def on_cluster(**changes: object) -> RetrainSettings:
    return RetrainSettings.model_validate({"registry": "r", "dataset": "d", "work": "w"} | changes)


@pytest.mark.usefixtures("ray_cluster")
def test_waiting_for_a_gpu_has_a_limit(model: str) -> None:
    assert 0 <= parity_for_labeling(model, on_cluster()) < 0.05, "the cluster has no GPU, and none is announced"
    with pytest.raises(
        NodesUnavailableError,
        match=r"comparing the golden output of .* on a GPU did not finish within 0\.5 s \(node_wait_s\)",
    ):
        parity_for_labeling(model, on_cluster(gpus=1, node_wait_s=0.5))


ON_A_GPU = """
import sys
import ray
from microaction.retraining import comparison
from microaction.retraining.settings import RetrainSettings

ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
settings = RetrainSettings.model_construct(gpus=None, cpus=None, node_wait_s=36_000.0)
print(comparison.parity_for_labeling(sys.argv[1], settings))
comparison._parity_on_gpu = lambda candidate: 1.0 + len(ray.get_gpu_ids())
print(comparison.parity_for_labeling(sys.argv[1], settings))
"""


@pytest.mark.slow
def test_the_golden_output_is_compared_on_a_gpu_if_any(model: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU, model], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    difference, assigned = map(float, done.stdout.split())
    assert 0 <= difference < 0.05
    assert assigned == 1.0 + 1
