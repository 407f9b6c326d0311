"""Plots of metrics, as SVG files: sharp at any size, and the same bytes for the same numbers.

Sizes are in inches, of which a page shows 96 pixels each. Shapes: K actions.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from microaction.evaluation.calibration import ConfidenceBin
from microaction.pages import COLORS
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_WIDTH = 10.2  # inches that a page is wide at most
SMALL_TEXT = 7.5  # points: 10 pixels of a page
SVG_METADATA = {"Date": None, "Creator": "microaction"}
PIXELS_PER_INCH = 192  # of what is drawn as pixels: twice those of a page
# Colors that people with color blindness tell apart, and markers for those who do not; light yellow is no line.
LINES: tuple[dict[str, Any], ...] = (
    {"color": COLORS[1][0], "marker": "o"},
    {"color": COLORS[6][0], "marker": "s"},
    {"color": COLORS[2][0], "marker": "^"},
    {"color": COLORS[3][0], "marker": "D"},
)


def confusion_plot(counts_KK: np.ndarray, labels: Sequence[str]) -> bytes:
    """Return a plot of the confusion matrix: rows are true actions, columns predicted ones, and cells the fraction of the
    row's clips. Both axes have names and ids of actions; lines separate the body parts."""
    fractions_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    figure = new_figure(PAGE_WIDTH, 11)
    axes = figure.add_subplot()
    image = axes.imshow(fractions_KK, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    ticks = [f"{label}  {action_id}" for action_id, label in enumerate(labels)]
    axes.set_yticks(range(len(labels)), ticks, fontsize=SMALL_TEXT)
    # Anchored where they touch the axis, so that narrower fonts leave no gap.
    axes.set_xticks(
        range(len(labels)), ticks, fontsize=SMALL_TEXT, rotation=90, rotation_mode="anchor", ha="right", va="center"
    )
    for border in np.flatnonzero(np.diff(BODY_PART_OF)) + 0.5:
        axes.axhline(border, color="0.6", linewidth=0.6)
        axes.axvline(border, color="0.6", linewidth=0.6)
    axes.set_xlabel("predicted action", fontsize=11)
    axes.set_ylabel("true action", fontsize=11)
    axes.set_title(f"Confusion matrix of {int(counts_KK.sum())} clips")
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.5, aspect=40, pad=0.01)
    bar.set_label("fraction of the true action's clips", fontsize=9)
    return svg(figure)


def per_class_plot(rows: Sequence[dict[str, float]], labels: Sequence[str]) -> bytes:
    """Return a plot of the F1 of every action as a bar, in the color of its body part, with its number of true clips."""
    f1_K, num_true_K = ([row[name] for row in rows] for name in ("f1", "support"))
    return action_bars(f1_K, num_true_K, labels, xlabel="F1", title="F1 per action (true clips)")


def action_bars(
    value_K: Sequence[float], num_true_K: Sequence[float], labels: Sequence[str], *, xlabel: str, title: str
) -> bytes:
    """Return a plot of a value in [0, 1] of every action as a bar, in the color of its body part, with how often the action is
    true; NaN has no bar."""
    figure = new_figure(PAGE_WIDTH, 11)
    axes = figure.add_subplot()
    for part, name in enumerate(BODY_PARTS):
        actions = [action for action, of in enumerate(BODY_PART_OF) if of == part]
        axes.barh(
            actions,
            [value_K[action] for action in actions],
            color=COLORS[part][0],
            edgecolor="0.3",
            linewidth=0.5,
            label=name,
        )
    ticks = [f"{label} ({num_true:.0f})" for label, num_true in zip(labels, num_true_K, strict=True)]
    axes.set_yticks(range(len(labels)), ticks, fontsize=SMALL_TEXT)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(xlabel)
    axes.set_title(title)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return svg(figure)


def reliability_plot(
    bins: Sequence[ConfidenceBin],
    *,
    samples: str = "clips",
    confidence: str = "top probability",
    accuracy: str = "accuracy",
    is_log: bool = False,
) -> bytes:
    """Return a plot of accuracy by confidence: below the diagonal the network is over-confident.

    The words name the axes; `is_log` is for counts that differ by orders of magnitude.
    """
    figure = new_figure(5, 5)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        **LINES[0],
        label="measured",
        clip_on=False,
    )
    axes.set_ylabel(accuracy)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title("Calibration")
    counts.bar(
        [each.low for each in bins],
        [each.num_samples for each in bins],
        [each.high - each.low for each in bins],
        align="edge",
        color=LINES[0]["color"],
        edgecolor="white",
    )
    if is_log:
        counts.set_yscale("log")
        counts.set_ylim(bottom=0.7)  # a bar of one is seen
    counts.set_ylabel(samples)
    counts.set_xlabel(confidence)
    counts.set_xlim(0, 1)
    return svg(figure)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` × `height` inches that needs no display."""
    # Imported here: the majority of the processes that import this module never plot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg(figure: "Figure") -> bytes:
    """Return a figure as the content of an SVG file, which says neither when nor by which version it was drawn."""
    from matplotlib import rc_context

    file = io.BytesIO()
    # Text stays text, which is small and which viewers draw in fonts of theirs; names of elements are the same in every process.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "microaction"}):
        figure.savefig(file, format="svg", dpi=PIXELS_PER_INCH, metadata=SVG_METADATA)
    return file.getvalue()
