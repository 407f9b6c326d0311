"""`microaction evaluate …`: measure a checkpoint on labeled clips."""

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
    from microaction.evaluation.run import Evaluation


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(EvaluateSettings, argv)
    with reported_errors(), running_ray(), shown_progress("evaluating") as show:
        evaluation = evaluate(settings, show)
    print_notices(settings.model, evaluation.notices)
    console.print(metrics_table(evaluation.metrics, settings.out))


def evaluate(settings: EvaluateSettings, show: Show) -> "Evaluation":
    """Evaluate a checkpoint and show the progress."""
    from microaction.evaluation.run import run_evaluation

    return run_evaluation(
        settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips")
    )


def metrics_table(metrics: dict[str, float], out: str) -> Table:
    """Return the metrics, and where the report is."""
    table = Table(title="Recognition", show_header=False)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("written to", out)
    return table
