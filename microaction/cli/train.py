"""`microaction train …`: train a network on labeled clips; the same name again resumes the run."""

from typing import TYPE_CHECKING

from rich.table import Table

from microaction.cli.app import Show, console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.training.recipes import recipe_of
from microaction.training.settings import TrainSettings

if TYPE_CHECKING:
    from microaction.training.progress import TrainingProgress
    from microaction.training.run import TrainingResult


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(TrainSettings, argv)
    if settings.recipe.name != "default":
        origin = recipe_of(settings.model, settings.recipe.name).origin
        console.print(f"recipe {settings.recipe.name}: {origin}", markup=False, highlight=False, soft_wrap=True)
    with reported_errors(), running_ray(), shown_progress("training") as show:
        result = train(settings, show)
    console.print(summary_table(result))


def train(settings: TrainSettings, show: Show) -> "TrainingResult":
    """Train a network and show the progress."""
    from microaction.training.run import run_training

    return run_training(settings, on_progress=lambda progress: report(progress, show))


def report(progress: "TrainingProgress", show: Show) -> None:
    """Move the bar; the end of an epoch is a line that stays."""
    if progress.features is not None:
        done, total = progress.features
        show(done, total, f"features of {done} of {total} videos")
        return
    done = (progress.epoch - 1) * progress.num_steps + progress.step
    where = f"epoch {progress.epoch}/{progress.num_epochs}, step {progress.step}/{progress.num_steps}"
    show(done, progress.num_epochs * progress.num_steps, f"{where}, loss {progress.loss:.3f}")
    if progress.metrics is None:
        return
    console.print(
        f"epoch {progress.epoch}/{progress.num_epochs}: loss {progress.loss:.3f}, validation {_said(progress.metrics)}",
        highlight=False,
        soft_wrap=True,
    )
    if progress.num_unreadable:
        from microaction.training.log import UNREADABLE_FILE

        console.print(
            f"{progress.num_unreadable} clips could not be read and are left out: see {UNREADABLE_FILE}", style="yellow"
        )


def _said(metrics: dict[str, float]) -> str:
    """Return the metrics that a line at the end of an epoch has room for."""
    if "map_challenge" in metrics:
        return f"mAP {metrics['map_challenge']:.3f}, event F1 {metrics['event_f1@0.5']:.3f}"
    return (
        f"action top-1 {metrics['action_top1']:.1%}, body top-1 {metrics['body_top1']:.1%}, F1 mean "
        f"{metrics['f1_mean']:.3f}"
    )


def summary_table(result: "TrainingResult") -> Table:
    """Return the metrics of the best checkpoint, and where it is."""
    table = Table(title="Best checkpoint", show_header=False)
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("checkpoint", result.checkpoint)
    table.add_row("report", result.report)
    return table
