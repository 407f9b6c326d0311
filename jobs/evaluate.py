"""`python -m jobs.evaluate …`: measures a checkpoint on labelled clips."""

from rich.table import Table

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.config import EvaluateSettings
from microaction.evaluation.run import run_evaluation


def main() -> None:
    settings = parse_settings(EvaluateSettings)
    with reported_errors(), running_ray(), shown_progress("measuring") as show:
        metrics = run_evaluation(
            settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips")
        )
    console.print(metrics_table(metrics, settings.out))


def metrics_table(metrics: dict[str, float], out: str) -> Table:
    table = Table(title="Recognition", show_header=False)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("written to", out)
    return table


if __name__ == "__main__":
    main()
