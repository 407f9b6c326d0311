"""Files of an evaluation: metrics, per-class table, predictions and plots."""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from microaction import storage
from microaction.evaluation.calibration import confidence_bins
from microaction.evaluation.metrics import confusion, measure, per_class_metrics
from microaction.evaluation.plots import confusion_plot, per_class_plot, reliability_plot
from microaction.schema import parquet_bytes
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS


def write_report(
    out: str,
    names: Sequence[str],
    probabilities_NK: np.ndarray,
    target_N: np.ndarray,
    labels: Sequence[str],
    model_digest: str,
    body_NP: np.ndarray | None = None,
) -> dict[str, float]:
    """Write metrics.json, per_class.csv, predictions.parquet and three plots into `out`; return the metrics.

    `names` [N] are the clips' names, `labels` [K] the actions' names, `body_NP` the answers of a network's own classifiers of
    body parts.
    """
    metrics = measure(probabilities_NK, target_N, body_NP)
    summary = {"num_clips": len(names), "model_digest": model_digest, **metrics}
    storage.write_bytes(storage.join(out, "metrics.json"), json.dumps(summary, indent=2).encode() + b"\n")
    storage.write_bytes(storage.join(out, "per_class.csv"), per_class_csv(probabilities_NK, target_N, labels).encode())
    predictions = predictions_table(names, probabilities_NK, target_N, body_NP)
    storage.write_bytes(storage.join(out, "predictions.parquet"), predictions)
    plots = {
        "confusion.svg": confusion_plot(confusion(probabilities_NK, target_N), labels),
        "per_class.svg": per_class_plot(per_class_metrics(probabilities_NK, target_N), labels),
        "calibration.svg": reliability_plot(confidence_bins(probabilities_NK, target_N)),
    }
    for name, plot in plots.items():
        storage.write_bytes(storage.join(out, name), plot)
    return metrics


def per_class_csv(probabilities_NK: np.ndarray, target_N: np.ndarray, labels: Sequence[str]) -> str:
    """Return a CSV with a line per action: its body part, precision, recall, f1 and support (number of true clips)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["action_id", "action", "body_part", "precision", "recall", "f1", "support"])
    for action_id, row in enumerate(per_class_metrics(probabilities_NK, target_N)):
        numbers = [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]
        part = BODY_PARTS[BODY_PART_OF[action_id]]
        writer.writerow([action_id, labels[action_id], part, *numbers, int(row["support"])])
    return text.getvalue()


def predictions_table(
    names: Sequence[str], probabilities_NK: np.ndarray, target_N: np.ndarray, body_NP: np.ndarray | None = None
) -> bytes:
    """Return a Parquet file with a row per clip: clip, target, predicted, probabilities, and body_part_probabilities where the
    network has classifiers of their own for them."""
    columns = {
        "clip": list(names),
        "target": pa.array(target_N, pa.int32()),
        "predicted": pa.array(probabilities_NK.argmax(axis=1), pa.int32()),
        "probabilities": pa.array(list(probabilities_NK.astype(np.float32)), pa.list_(pa.float32())),
    }
    if body_NP is not None:
        columns["body_part_probabilities"] = pa.array(list(body_NP.astype(np.float32)), pa.list_(pa.float32()))
    return parquet_bytes(pa.table(columns))
