"""`python -m jobs.retrain REGISTRY …`: trains on new labels and puts the result into production, if it is no worse."""

import sys

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from jobs.train import report
from microaction.config import RetrainSettings
from microaction.retraining.run import Outcome, run_retraining

EXIT_REFUSED = 3


def main() -> None:
    settings = parse_settings(RetrainSettings)
    with reported_errors(), running_ray(), shown_progress("retraining") as show:
        outcome = run_retraining(
            settings,
            on_training=lambda progress: report(progress, show),
            on_measuring=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips measured"),
        )
    console.print(said(outcome, settings), highlight=False, soft_wrap=True)
    if outcome.ended == "refused":
        sys.exit(EXIT_REFUSED)


def said(outcome: Outcome, settings: RetrainSettings) -> str:
    news = f"{outcome.news.num_new} new and {outcome.news.num_corrected} corrected clips"
    match outcome.ended:
        case "too little new":
            return f"{outcome.version} stays in production: {news}, fewer than min_new ({settings.min_new})"
        case "promoted":
            return f"{outcome.version} is in production, with {news}: {outcome.page}"
        case "refused":
            failed = ", ".join(outcome.failed_gates)
            return f"{outcome.version} stays in production, the candidate fails {failed}: {outcome.page}"


if __name__ == "__main__":
    main()
