"""A run as one page: what was trained, on what, how it went and how good it is. The page needs no other file, no network."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.clips.manifest import Clip
from microaction.evaluation.calibration import confidence_bins
from microaction.evaluation.metrics import confusion, per_class_metrics
from microaction.evaluation.plots import (
    LINES,
    PAGE_WIDTH,
    confusion_plot,
    new_figure,
    per_class_plot,
    reliability_plot,
    svg,
)
from microaction.pages import printable, render
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from microaction.training.state import Epoch, RunState
from microaction.versions import versions

REPORT_FILE = "report.html"
TEMPLATES = "microaction.training"
CURVES_FILE = "curves.svg"
PAIRS_SHOWN = 15

# Percent, on MA-52's test set. Source: Guo et al., "Benchmarking Micro-action Recognition", IEEE TCSVT 34(7), 2024.
PAPER_COLUMNS = ("body_top1", "action_top1", "action_top5", "body_f1_macro", "action_f1_macro", "f1_mean")
PAPER_RESULTS = {
    "C3D": (74.04, 52.22, 86.97, 66.60, 40.86, 58.43),
    "I3D": (78.16, 57.07, 88.67, 71.56, 39.84, 61.66),
    "SlowFast": (77.18, 59.60, 88.54, 70.61, 44.96, 63.09),
    "TSM": (77.64, 56.75, 87.47, 70.98, 40.19, 61.39),
    "MANet": (78.95, 61.33, 88.83, 72.87, 49.22, 65.59),
}


@dataclass(frozen=True)
class SplitSummary:
    """One side of the data: clips, subjects (0 if unknown), classes, and clips of the rarest and the most common class."""

    name: str
    num_clips: int
    num_subjects: int
    num_classes: int
    min_clips: int
    max_clips: int


@dataclass(frozen=True)
class ConfusedPair:
    """True action, predicted action, how often, and which fraction of the true action's clips that is."""

    actual: str
    predicted: str
    num_clips: int
    fraction: float


def write_report(settings: TrainSettings, run_uri: str, state: RunState, predictions: bytes) -> str:
    """Write report.html and curves.svg, per_class.svg, confusion.svg and calibration.svg into the run's folder; return the
    page's URI. `predictions` is the best epoch's table of validation predictions."""
    table = pq.read_table(pa.BufferReader(predictions))
    probabilities_NK = np.stack(table["probabilities"].to_numpy())
    target_N = table["target"].to_numpy()
    per_class = per_class_metrics(probabilities_NK, target_N)
    counts_KK = confusion(probabilities_NK, target_N)
    plots = {
        CURVES_FILE: curves_plot(state.losses.numpy(), state.epochs),
        "per_class.svg": per_class_plot(per_class, ACTIONS),
        "confusion.svg": confusion_plot(counts_KK, ACTIONS),
        "calibration.svg": reliability_plot(confidence_bins(probabilities_NK, target_N)),
    }
    for name, plot in plots.items():
        storage.write_bytes(storage.join(run_uri, name), plot)
    train, held_out = read_splits(settings)
    best = next(epoch for epoch in state.epochs if epoch.number == state.best_epoch)
    page = render(
        TEMPLATES,
        "report.html.j2",
        name=settings.name,
        best=best,
        epochs=state.epochs,
        num_steps=len(state.losses),
        splits=[summary_of("training", train), summary_of("validation", held_out)],
        num_shared_subjects=num_shared_subjects(train, held_out),
        published=PAPER_RESULTS,
        ours=[100 * best.metrics[name] for name in PAPER_COLUMNS],
        columns=PAPER_COLUMNS,
        pairs=confused_pairs(counts_KK, ACTIONS),
        per_class=[
            {"action": action, "body_part": BODY_PARTS[BODY_PART_OF[label]], **per_class[label]}
            for label, action in enumerate(ACTIONS)
        ],
        unreadable=state.unreadable,
        settings=flat(settings.model_dump(mode="json", exclude={"config"})),
        versions=versions(),
        plots=embedded(plots),
    )
    uri = storage.join(run_uri, REPORT_FILE)
    storage.write_bytes(uri, page)
    return uri


def embedded(plots: Mapping[str, bytes]) -> dict[str, str]:
    """Return plots by file name as base64, as a page holds them."""
    return {name: base64.b64encode(plot).decode() for name, plot in plots.items()}


def summary_of(name: str, clips: Sequence[Clip]) -> SplitSummary:
    """Return the summary of one side of the data."""
    classes = Counter(clip.label for clip in clips)
    subjects = {clip.subject for clip in clips} - {None}
    return SplitSummary(name, len(clips), len(subjects), len(classes), min(classes.values()), max(classes.values()))


def num_shared_subjects(train: Sequence[Clip], held_out: Sequence[Clip]) -> int | None:
    """Return how many subjects are on both sides; None if a clip's subject is unknown."""
    sides = [{clip.subject for clip in clips} for clips in (train, held_out)]
    return None if None in sides[0] | sides[1] else len(sides[0] & sides[1])


def confused_pairs(counts_KK: np.ndarray, labels: Sequence[str], max_pairs: int = PAIRS_SHOWN) -> list[ConfusedPair]:
    """Return the pairs that are confused most often, the most frequent first."""
    wrong_KK = counts_KK * (1 - np.eye(len(counts_KK), dtype=counts_KK.dtype))
    order = np.argsort(-wrong_KK, axis=None, kind="stable")[:max_pairs]
    pairs = [divmod(int(flat_index), len(counts_KK)) for flat_index in order]
    return [
        ConfusedPair(labels[actual], labels[predicted], int(count), float(count / counts_KK[actual].sum()))
        for actual, predicted in pairs
        if (count := wrong_KK[actual, predicted]) > 0
    ]


def curves_plot(
    losses: np.ndarray, epochs: Sequence[Epoch], scores: Sequence[str] = ("action_top1", "body_top1", "f1_mean")
) -> bytes:
    """Return a plot of the loss of every step, and of some metrics of every epoch, over the same axis."""
    figure = new_figure(PAGE_WIDTH, 6)
    loss_axes, score_axes = figure.subplots(2, 1, sharex=True)
    steps = np.arange(1, len(losses) + 1) / len(losses) * len(epochs)
    # A line of a million points is drawn as pixels.
    loss_axes.plot(steps, losses, color="0.7", linewidth=0.7, label="every step", rasterized=True)
    numbers = [epoch.number for epoch in epochs]
    loss_axes.plot(numbers, [epoch.metrics["loss"] for epoch in epochs], **LINES[0], label="mean of the epoch")
    loss_axes.set_ylabel("training loss")
    loss_axes.legend()
    for line, name in zip(cycle(LINES), scores, strict=False):
        score_axes.plot(numbers, [epoch.metrics[name] for epoch in epochs], **line, label=name)
    score_axes.set_ylabel("validation score")
    score_axes.set_ylim(0, 1)
    score_axes.set_xlabel("epoch")
    score_axes.xaxis.get_major_locator().set_params(integer=True)
    score_axes.legend()
    for axes in (loss_axes, score_axes):
        axes.grid(color="0.92")
    return svg(figure)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one table of dotted names."""
    rows: dict[str, str] = {}
    for name, value in settings.items():
        rows |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": printable(f"{value}")}
        )
    return rows
