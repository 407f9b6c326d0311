"""An evaluation as files: metrics, per-class table, predictions and the confusion matrix as a picture."""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from microaction import storage
from microaction.evaluation.metrics import confusion, per_class_metrics, recognition_metrics
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS

PIXELS_PER_INCH = 110


def write_report(
    out: str,
    names: Sequence[str],
    scores_NK: np.ndarray,
    target_N: np.ndarray,
    labels: Sequence[str],
    model_digest: str,
) -> dict[str, float]:
    """Writes metrics.json, per_class.csv, predictions.parquet and confusion.png into `out`; returns the metrics.

    `names` [N] are the clips' names, `scores_NK` their probabilities, `labels` [K] the actions' names.
    """
    metrics = recognition_metrics(scores_NK, target_N)
    summary = {"num_clips": len(names), "model_digest": model_digest, **metrics}
    storage.write_bytes(storage.join(out, "metrics.json"), json.dumps(summary, indent=2).encode() + b"\n")
    storage.write_bytes(storage.join(out, "per_class.csv"), per_class_csv(scores_NK, target_N, labels).encode())
    storage.write_bytes(storage.join(out, "predictions.parquet"), _predictions(names, scores_NK, target_N))
    storage.write_bytes(storage.join(out, "confusion.png"), confusion_picture(confusion(scores_NK, target_N), labels))
    return metrics


def per_class_csv(scores_NK: np.ndarray, target_N: np.ndarray, labels: Sequence[str]) -> str:
    """A line per action: its body part, precision, recall, f1 and support (true clips)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["action_id", "action", "body_part", "precision", "recall", "f1", "support"])
    for action_id, row in enumerate(per_class_metrics(scores_NK, target_N)):
        numbers = [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]
        part = BODY_PARTS[BODY_PART_OF[action_id]]
        writer.writerow([action_id, labels[action_id], part, *numbers, int(row["support"])])
    return text.getvalue()


def confusion_picture(counts_KK: np.ndarray, labels: Sequence[str]) -> bytes:
    """A PNG of the confusion matrix: each row is a true action, its cells the shares of its clips; lines part the body
    parts."""
    shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(13, 12), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ticks = [f"{label}  {action_id}" for action_id, label in enumerate(labels)]
    axes.set_yticks(range(len(labels)), ticks, fontsize=7)
    axes.set_xticks(range(len(labels)), [str(i) for i in range(len(labels))], fontsize=7, rotation=90)
    for border in np.flatnonzero(np.diff(BODY_PART_OF)) + 0.5:
        axes.axhline(border, color="0.7", linewidth=0.6)
        axes.axvline(border, color="0.7", linewidth=0.6)
    axes.set_xlabel("predicted action")
    axes.set_ylabel("true action")
    axes.set_title(f"Confusion of {int(counts_KK.sum())} clips: share of each true action's clips")
    figure.colorbar(image, ax=axes, shrink=0.5)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PIXELS_PER_INCH)
    return file.getvalue()


def _predictions(names: Sequence[str], scores_NK: np.ndarray, target_N: np.ndarray) -> bytes:
    table = pa.table(
        {
            "clip": list(names),
            "target": pa.array(target_N, pa.int32()),
            "predicted": pa.array(scores_NK.argmax(axis=1), pa.int32()),
            "probabilities": pa.array(list(scores_NK.astype(np.float32)), pa.list_(pa.float32())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
