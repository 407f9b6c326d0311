import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from microaction.evaluation.report import write_report
from microaction.taxonomy import ACTIONS


def test_the_files_agree_with_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(52, size=80)
    scores = rng.dirichlet(np.ones(52), size=80)
    names = [f"clip_{i}.mp4" for i in range(80)]
    metrics = write_report(str(tmp_path), names, scores, target, ACTIONS, "abc")

    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved == {"num_clips": 80, "model_digest": "abc", **metrics}
    with open(tmp_path / "per_class.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["action"] for row in rows] == list(ACTIONS)
    assert sum(int(row["support"]) for row in rows) == 80
    predictions = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    right = [row["predicted"] == row["target"] for row in predictions]
    assert np.mean(right) == metrics["action_top1"]
    assert [row["clip"] for row in predictions] == names
    for picture in ("confusion", "per_class", "calibration"):
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
