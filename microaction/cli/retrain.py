"""`microaction retrain REGISTRY …`: train on new labels and promote the result if it is no worse."""

import sys
from typing import TYPE_CHECKING

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.cli.train import report
from microaction.errors import EXIT_TOO_MANY_FAILED
from microaction.retraining.settings import RetrainSettings

if TYPE_CHECKING:
    from microaction.retraining.run import RetrainingResult


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(RetrainSettings, argv)
    with reported_errors(), running_ray(), shown_progress("retraining") as show:
        from microaction.retraining.run import run_retraining

        result = run_retraining(
            settings,
            on_training=lambda progress: report(progress, show),
            on_evaluation=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips evaluated"),
        )
    console.print(describe(result, settings.min_new), highlight=False, soft_wrap=True)
    if result.ended == "rejected":
        sys.exit(EXIT_TOO_MANY_FAILED)


def describe(result: "RetrainingResult", min_new: int) -> str:
    """Return in a sentence how a retraining ended."""
    delta = f"{result.delta.num_new} new and {result.delta.num_corrected} corrected clips"
    match result.ended:
        case "too few new clips":
            return f"{result.version} stays in production: {delta}, fewer than min_new ({min_new})"
        case "promoted":
            return f"{result.version} is in production, with {delta}: {result.page}"
        case "rejected":
            failed = ", ".join(result.failed_gates)
            return f"{result.version} stays in production, the candidate fails {failed}: {result.page}"
