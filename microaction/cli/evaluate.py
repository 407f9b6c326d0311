"""`microaction evaluate …`: measure a checkpoint on labeled clips, or detections in untrimmed videos."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.table import Table

from microaction.cli.app import (
    Show,
    console,
    parse_settings,
    print_notices,
    reported_errors,
    running_ray,
    shown_progress,
)
from microaction.evaluation.settings import EvaluateSettings

if TYPE_CHECKING:
    from microaction.evaluation.detection_run import DetectionEvaluation
    from microaction.evaluation.run import Evaluation


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(EvaluateSettings, argv)
    ray = running_ray() if settings.detections is None else nullcontext()
    with reported_errors(), ray, shown_progress("evaluating") as show:
        if settings.task == "detection":
            found = evaluate_detection(settings, show)
            notices, table = found.notices, metrics_table(found.metrics, settings.out, "Detection", found.seen)
        else:
            evaluation = evaluate(settings, show)
            notices, table = evaluation.notices, metrics_table(evaluation.metrics, settings.out)
    print_notices(settings.detections or settings.model or "", notices)
    console.print(table)


def evaluate(settings: EvaluateSettings, show: Show) -> "Evaluation":
    """Evaluate a checkpoint and show the progress."""
    from microaction.evaluation.run import run_evaluation

    return run_evaluation(
        settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips")
    )


def evaluate_detection(settings: EvaluateSettings, show: Show) -> "DetectionEvaluation":
    """Measure a detector or a table of detections, and show the progress."""
    from microaction.evaluation.detection_run import run_detection_evaluation

    return run_detection_evaluation(
        settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} videos")
    )


def metrics_table(metrics: dict[str, float], out: str, title: str = "Recognition", seen: str | None = None) -> Table:
    """Return the metrics, where the report is, and if it is known which people the weights were trained on."""
    table = Table(title=title, show_header=False)
    for name, value in metrics.items():
        is_count = name.startswith(("num_", "classes_"))
        table.add_row(name, f"{value:.0f}" if is_count else f"{value:.4f}")
    if seen is not None:
        table.add_row("people trained on", seen)
    table.add_row("written to", out)
    return table
