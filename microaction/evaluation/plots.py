"""Plots of metrics, as PNG files.

Shapes: K actions.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from microaction.evaluation.calibration import ConfidenceBin
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 160  # text stays sharp at twice the size at which a page shows the plot


def confusion_plot(counts_KK: np.ndarray, labels: Sequence[str]) -> bytes:
    """Return a PNG of the confusion matrix: rows are true actions, columns predicted ones, and cells the fraction of the
    row's clips. Both axes have names and ids of actions; lines separate the body parts."""
    fractions_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    figure = new_figure(15, 14)
    axes = figure.add_subplot()
    image = axes.imshow(fractions_KK, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ticks = [f"{label}  {action_id}" for action_id, label in enumerate(labels)]
    axes.set_yticks(range(len(labels)), ticks, fontsize=8)
    axes.set_xticks(range(len(labels)), ticks, fontsize=8, rotation=90)
    for border in np.flatnonzero(np.diff(BODY_PART_OF)) + 0.5:
        axes.axhline(border, color="0.7", linewidth=0.6)
        axes.axvline(border, color="0.7", linewidth=0.6)
    axes.set_xlabel("predicted action", fontsize=11)
    axes.set_ylabel("true action", fontsize=11)
    axes.set_title(f"Confusion matrix of {int(counts_KK.sum())} clips: fraction of each true action's clips")
    figure.colorbar(image, ax=axes, shrink=0.5)
    return png(figure)


def per_class_plot(rows: Sequence[dict[str, float]], labels: Sequence[str]) -> bytes:
    """Return a PNG of the F1 of every action as a bar, in the color of its body part, with its number of true clips."""
    f1_K, num_true_K = ([row[name] for row in rows] for name in ("f1", "support"))
    return action_bars(f1_K, num_true_K, labels, xlabel="F1", title="F1 per action (true clips)")


def action_bars(
    value_K: Sequence[float], num_true_K: Sequence[float], labels: Sequence[str], *, xlabel: str, title: str
) -> bytes:
    """Return a PNG of a value in [0, 1] of every action as a bar, in the color of its body part, with how often the action is
    true; NaN has no bar."""
    figure = new_figure(8, 11)
    axes = figure.add_subplot()
    for part, name in enumerate(BODY_PARTS):
        actions = [action for action, of in enumerate(BODY_PART_OF) if of == part]
        axes.barh(actions, [value_K[action] for action in actions], color=f"C{part}", label=name)
    ticks = [f"{label} ({num_true:.0f})" for label, num_true in zip(labels, num_true_K, strict=True)]
    axes.set_yticks(range(len(labels)), ticks, fontsize=7)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(xlabel)
    axes.set_title(title)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return png(figure)


def reliability_plot(
    bins: Sequence[ConfidenceBin],
    *,
    samples: str = "clips",
    confidence: str = "top probability",
    accuracy: str = "accuracy",
    is_log: bool = False,
) -> bytes:
    """Return a PNG of accuracy by confidence: below the diagonal the network is over-confident.

    The words name the axes; `is_log` is for counts that differ by orders of magnitude.
    """
    figure = new_figure(5, 5)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        marker="o",
        label="measured",
        clip_on=False,
    )
    axes.set_ylabel(accuracy)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title("Calibration")
    widths = [each.high - each.low for each in bins]
    counts.bar(
        [each.low for each in bins], [each.num_samples for each in bins], widths, align="edge", edgecolor="white"
    )
    if is_log:
        counts.set_yscale("log")
        counts.set_ylim(bottom=0.7)  # a bar of one is seen
    counts.set_ylabel(samples)
    counts.set_xlabel(confidence)
    counts.set_xlim(0, 1)
    return png(figure)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` × `height` inches that needs no display."""
    # Imported here: the majority of the processes that import this module never plot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    """Return a figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PIXELS_PER_INCH)
    return file.getvalue()
