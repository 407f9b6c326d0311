"""`microaction export OUT DEST --format F`: labels for other programs."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from microaction.cli.app import console, parse_settings, reported_errors, shown_progress
from microaction.export.fiftyone import DATA_FILE
from microaction.export.settings import ExportSettings

if TYPE_CHECKING:
    from microaction.export.run import ExportSummary

NAME_FLAGS = {"--video": "video", "--person": "person"}  # flag → setting
FAILURES = {"csv": "failures.csv", "xlsx": "the sheet failures"}  # where a format has them; else in the labels
NEXT_STEPS = {
    "elan": "Open a file in ELAN: double-click it, or File > Open. It plays the video that it names.",
    "boris": "Open the project in BORIS: File > Open project; then Observations > Open an observation.",
    "csv": 'Open a file in Excel, or read it in R with {read_csv}("{first}", fileEncoding = "UTF-8-BOM").',
    "xlsx": "Open it in Excel or LibreOffice.",
    "webvtt": "Play a video with its captions: VLC shows them if Subtitle > Add Subtitle File names the .vtt.",
    "fiftyone": "Load it in FiftyOne: fo.Dataset.from_dir({dest!r}, dataset_type=fo.types.FiftyOneTemporalDetectionDataset, "
    "data_path={data!r})",
    "mma52": "Train or evaluate on annotations.csv with --train-list or --clips-list; submit submission.zip.",
}


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    arguments, names = split_names(sys.argv[1:] if argv is None else argv)
    settings = parse_settings(ExportSettings, arguments).model_copy(update=names)
    with reported_errors(), shown_progress("exporting") as show:
        from microaction.export.run import run_export

        summary = run_export(settings, on_video=lambda done, total: show(done, total, f"{done} of {total} videos"))
    console.print(summary_table(summary, settings))
    console.print(next_step(summary, settings), markup=False, highlight=False, soft_wrap=True)


def split_names(argv: Iterable[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Return the arguments without the names of videos and people, and these by setting.

    Each is one name, whatever is in it: the parser of settings takes `Smith, Ann` for two, and refuses `[1].mp4`. One that begins
    with a dash is given as `--video=-a.mp4`.
    """
    rest: list[str] = []
    names: dict[str, tuple[str, ...]] = {}
    pending = iter(argv)
    for argument in pending:
        flag, mark, value = argument.partition("=")
        if flag in NAME_FLAGS and not mark:
            value = next(pending, "-")
            if value.startswith("-"):  # the parser says that a value is missing
                rest += [argument, *([] if value == "-" else [value])]
                continue
        if flag in NAME_FLAGS:
            names[NAME_FLAGS[flag]] = (*names.get(NAME_FLAGS[flag], ()), value)
        else:
            rest.append(argument)
    return rest, names


def summary_table(summary: "ExportSummary", settings: ExportSettings) -> Table:
    """Return what was exported."""
    written = summary.written
    left_out = (
        f", {summary.num_left_out} left out: the format needs what is not known of them" if summary.num_left_out else ""
    )
    rows = {"videos": f"{written.num_videos}{left_out}", "events": str(written.num_events)}
    if summary.num_failures:
        where = FAILURES.get(settings.format, f"failures/ of {settings.out}")
        rows["spans without labels"] = f"{summary.num_failures}: see {where}"
    table = Table(title=summary.title, show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value, overflow="fold"))
    for number, location in enumerate(written.locations):
        table.add_row("" if number else "written", Text(location, overflow="fold"))
    return table


def next_step(summary: "ExportSummary", settings: ExportSettings) -> str:
    """Return what to do now, in a line."""
    return NEXT_STEPS[settings.format].format(
        first=summary.written.locations[0],
        read_csv="read.csv2" if settings.decimal == "comma" else "read.csv",
        dest=settings.dest,
        data=DATA_FILE if len(summary.written.locations) > 1 else "a folder with a copy of the archive",
    )
