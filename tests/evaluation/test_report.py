"""The files of an evaluation: that they agree with each other, and that the plots can be read."""

import csv
import io
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from microaction.evaluation import plots
from microaction.evaluation.report import write_report
from microaction.taxonomy import ACTIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_PIXELS_PER_INCH = 96


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
    for plot in ("confusion", "per_class", "calibration"):
        assert (tmp_path / f"{plot}.svg").read_bytes().startswith(b"<?xml")


def test_the_confusion_matrix_names_actions_on_both_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    svg = plots.svg

    def remember(figure: "Figure") -> bytes:
        figures.append(figure)
        return svg(figure)

    monkeypatch.setattr(plots, "svg", remember)
    plots.confusion_plot(np.eye(52, dtype=int), ACTIONS)
    axes = figures[0].axes[0]
    for ticks in (axes.get_yticklabels(), axes.get_xticklabels()):
        assert [tick.get_text() for tick in ticks] == [f"{name}  {action_id}" for action_id, name in enumerate(ACTIONS)]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true action", "predicted action")

    # Legible at the size at which pages show it: no label covers the next one, and all of the figure is in its frame.
    figures[0].savefig(io.BytesIO(), dpi=PAGE_PIXELS_PER_INCH)
    rows, columns = (
        [tick.get_window_extent() for tick in ticks] for ticks in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    assert all(lower.y1 <= upper.y0 for upper, lower in itertools.pairwise(rows))
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(columns))
    assert min(box.x0 for box in rows) > 0
    assert min(box.y0 for box in columns) > 0
