"""`python -m jobs.train …`: trains a model on labelled clips; the same name again resumes the run."""

from collections.abc import Callable

from rich.table import Table

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.config import TrainSettings
from microaction.training.log import UNREADABLE_FILE
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, run_training


def main() -> None:
    settings = parse_settings(TrainSettings)
    with reported_errors(), running_ray(), shown_progress("training") as show:
        result = run_training(settings, on_progress=lambda progress: report(progress, show))
    console.print(summary_table(result))


def report(progress: TrainingProgress, show: Callable[[float, float, str], None]) -> None:
    """Moves the bar; an epoch's end is a line that stays."""
    done = (progress.epoch - 1) * progress.num_steps + progress.step
    where = f"epoch {progress.epoch}/{progress.num_epochs}, step {progress.step}/{progress.num_steps}"
    show(done, progress.num_epochs * progress.num_steps, f"{where}, loss {progress.loss:.3f}")
    if progress.metrics is not None:
        measured = progress.metrics
        console.print(
            f"epoch {progress.epoch}/{progress.num_epochs}: loss {progress.loss:.3f}, validation action top-1 "
            f"{measured['action_top1']:.1%}, body top-1 {measured['body_top1']:.1%}, F1 mean {measured['f1_mean']:.3f}",
            highlight=False,
            soft_wrap=True,
        )
        if progress.num_unreadable:
            console.print(
                f"{progress.num_unreadable} clips could not be read and are left out: see {UNREADABLE_FILE}",
                style="yellow",
            )


def summary_table(result: TrainingResult) -> Table:
    table = Table(title="Best checkpoint", show_header=False)
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("checkpoint", result.checkpoint)
    table.add_row("report", result.report)
    return table


if __name__ == "__main__":
    main()
