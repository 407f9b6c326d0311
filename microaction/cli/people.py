"""`microaction people ARCHIVE OUT --model M`: who is in the videos of an archive, to be checked and edited before labeling."""

import shlex
import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.errors import EXIT_RETRY
from microaction.labeling.settings import PeopleSettings

if TYPE_CHECKING:
    from microaction.labeling.people_run import PeopleSummary


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(PeopleSettings, argv)
    with reported_errors(), running_ray(), shown_progress("finding people") as show:
        from microaction.labeling.people_run import run_people

        summary = run_people(
            settings, on_stage=lambda stage, done, total: show(done, total, progress_text(stage, done, total))
        )
    console.print(summary_table(summary))
    for warning in summary.warnings:
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for line in next_steps(summary, settings):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if summary.num_to_retry:
        console.print(
            f"{summary.num_to_retry} videos, or parts of them, failed for transient reasons (see the contact sheet): the same "
            "command retries them",
            style="red",
            soft_wrap=True,
        )
        sys.exit(EXIT_RETRY)


def progress_text(stage: str, done: float, total: float) -> str:
    """Return how far a run is."""
    if stage == "people":
        return f"looking for people: {done / 60:.0f} of {total / 60:.0f} min of video"
    return f"{'contact sheet' if stage == 'contact' else stage}: {done} of {total} videos"


def summary_table(summary: "PeopleSummary") -> Table:
    """Return what a run found."""
    from microaction.labeling.contact_page import left_out_of

    totals = summary.totals
    rows = {
        "videos": f"{totals.num_videos}, {totals.num_unreadable} of them unreadable",
        "passed over": summary.passed_over,
        "people": str(totals.num_people),
        "shots": str(totals.num_shots),
        "seconds with nobody": f"{totals.nobody_s:.1f}",
        "left out": left_out_of(totals.left_out, totals.left_out_s) or "nobody",
        "contact sheet": summary.contact_uri,
    }
    if summary.people_uri is not None:
        rows["list of people"] = summary.people_uri
    table = Table(title="People", show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def next_steps(summary: "PeopleSummary", settings: PeopleSettings) -> list[str]:
    """Return what to do now, in lines."""
    people = summary.people_uri or settings.people or ""
    command = ["microaction", "label", settings.archive, f"{settings.out}-labels", "--model", settings.model]
    if settings.catalog is not None:
        command += ["--catalog", settings.catalog]
    return [
        f"Open {summary.contact_uri}, edit {people} where it is wrong, then label with it:",
        f"  {shlex.join([*command, '--people', people])}",
    ]
