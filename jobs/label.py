"""`python -m jobs.label ARCHIVE OUT --model M`: labels every video of an archive; the same command again goes on."""

from rich.table import Table

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.config import LabelSettings
from microaction.labeling.run import Progress, RunSummary, run_labeling


def main() -> None:
    settings = parse_settings(LabelSettings)
    with reported_errors(), running_ray(), shown_progress("labelling") as show:
        summary = run_labeling(settings, on_progress=lambda progress: show(*as_shown(progress)))
    console.print(summary_table(summary, settings.out))


def as_shown(progress: Progress) -> tuple[float, float, str]:
    """(done, total, words) of a run's progress."""
    if progress.stage != "label":
        return progress.done, progress.total, f"{progress.stage}: {progress.done} of {progress.total} videos"
    minutes, total_minutes = progress.video_s / 60, progress.total_video_s / 60
    words = f"{minutes:.1f} of {total_minutes:.1f} min of video, {progress.num_windows} windows"
    if progress.num_failed:
        words += f", {progress.num_failed} chunks failed"
    return minutes, total_minutes, words


def summary_table(summary: RunSummary, out: str) -> Table:
    published = summary.published
    table = Table(title="Labels", show_header=False)
    table.add_row("videos", str(published.num_videos))
    table.add_row("minutes of video", f"{published.video_s / 60:.1f}")
    table.add_row("minutes labelled", f"{published.covered_s / 60:.1f}")
    table.add_row("windows", str(published.num_windows))
    table.add_row("events", str(published.num_events))
    table.add_row("failures (see failures/)", str(published.num_failures))
    table.add_row("chunks labelled now / done before", f"{summary.num_chunks} / {summary.num_committed_before}")
    table.add_row("written to", out)
    return table


if __name__ == "__main__":
    main()
