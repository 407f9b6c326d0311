"""Plots of detections, as SVG files.

Shapes: D detections, T thresholds of the temporal IoU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from microaction.evaluation.detection import Agreement
from microaction.evaluation.plots import LINES, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def precision_recall_plot(score_D: np.ndarray, is_true_D: np.ndarray, num_true: int, events: Agreement) -> bytes:
    """Return a plot of precision by recall of all detections together, and of the events at the working thresholds.

    Detections of one score are one point. Thresholds of classes differ, so that the events' point may lie beside the curve.
    """
    order = np.argsort(-score_D, kind="stable")
    hits_D = np.cumsum(is_true_D[order])
    is_last_D = np.append(np.diff(score_D[order]) != 0, True)[: len(order)]  # of those with its score
    precision = (hits_D / np.arange(1, len(order) + 1))[is_last_D]
    recall = hits_D[is_last_D] / max(num_true, 1)
    figure = new_figure(5, 5)
    axes = figure.add_subplot()
    line, point = LINES[:2]
    marker = line["marker"] if len(recall) == 1 else None
    axes.plot(recall, precision, color=line["color"], marker=marker, label="all detections, by falling score")
    name = f"working thresholds: F1 {events.f1:.2f}"
    axes.plot(events.recall, events.precision, **point, linestyle="", markersize=8, clip_on=False, zorder=3, label=name)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    _from_0_to_1(axes)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title("Precision and recall at a temporal IoU of 0.5")
    return svg(figure)


def map_plot(thresholds: Sequence[float], map_T: np.ndarray, body_map_T: np.ndarray) -> bytes:
    """Return a plot of the mean average precision by threshold of the temporal IoU, of actions and of body parts."""
    figure = new_figure(5, 5)
    axes = figure.add_subplot()
    for line, values_T, name in zip(LINES, (map_T, body_map_T), ("actions", "body parts"), strict=False):
        axes.plot(thresholds, values_T, **line, label=name)
    axes.set_xlabel("minimum temporal IoU")
    axes.set_ylabel("mean average precision")
    _from_0_to_1(axes)
    axes.set_xticks(thresholds)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title("Mean average precision by overlap")
    return svg(figure)


def _from_0_to_1(axes: "Axes") -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
