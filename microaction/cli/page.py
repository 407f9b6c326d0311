"""`microaction page OUT`: pages that show an archive and its videos with their labels."""

from microaction.cli.app import Show, console, parse_settings, reported_errors, shown_progress
from microaction.export.settings import PageSettings


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    show_pages(parse_settings(PageSettings, argv))


def show_pages(settings: PageSettings) -> str:
    """Write the pages of an output and say where they are; return the location of the first one."""
    with reported_errors(), shown_progress("writing pages") as show:
        index = write_pages(settings, show)
    console.print(f"open {index}", markup=False, highlight=False, soft_wrap=True)
    return index


def write_pages(settings: PageSettings, show: Show) -> str:
    """Write the pages of an output and show the progress; return the location of the first one."""
    from microaction.export.labels import read_labels
    from microaction.export.report import write_report

    return write_report(
        read_labels(settings.out),
        copy_videos=settings.copy_videos,
        link_s=round(settings.link_hours * 3600),
        on_video=lambda done, total: show(done, total, f"{done} of {total} videos"),
    )
