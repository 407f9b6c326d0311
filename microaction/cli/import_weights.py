"""`microaction import FILE OUT`: make a checkpoint of published weights, calibrated where clips are given."""

from contextlib import nullcontext

from microaction.cli.app import (
    console,
    parse_settings,
    print_notices,
    reported_errors,
    running_ray,
    shown_progress,
)
from microaction.cli.evaluate import metrics_table
from microaction.evaluation.settings import ImportSettings


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(ImportSettings, argv)
    calibrates = settings.calibrate_list is not None
    with reported_errors(), running_ray() if calibrates else nullcontext(), shown_progress("calibrating") as show:
        from microaction.evaluation.importing import import_checkpoint

        result = import_checkpoint(
            settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips")
        )
    if result.metrics:
        console.print(metrics_table(result.metrics, settings.out))
    console.print(f"{settings.out}: {result.checkpoint.config.origin}", markup=False, highlight=False, soft_wrap=True)
    print_notices(settings.out, result.checkpoint.notices)
