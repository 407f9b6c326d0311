"""`microaction label ARCHIVE OUT --model M`: label every video of an archive; the same command again continues."""

import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.table import Table

from microaction.cli.app import (
    Show,
    console,
    parse_settings,
    print_notices,
    reported_errors,
    running_ray,
    shown_progress,
)
from microaction.cli.page import show_pages
from microaction.errors import EXIT_RETRY, EXIT_TOO_MANY_FAILED
from microaction.export.settings import PageSettings
from microaction.labeling.settings import LabelSettings

if TYPE_CHECKING:
    from microaction.labeling.estimate import Estimate
    from microaction.labeling.run import Progress, RunSummary

RATE_WINDOW_S = 60.0


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(LabelSettings, argv)
    with reported_errors(), running_ray(), shown_progress("planning" if settings.plan else "labeling") as show:
        if settings.plan:
            from microaction.labeling.run import plan_labeling

            formatter = ProgressFormatter()
            plan = plan_labeling(settings, on_progress=lambda progress: show(*formatter(progress)))
        else:
            summary = label(settings, show)
    if settings.plan:
        console.print(plan_table(plan))
        return
    print_notices(settings.model, summary.notices)
    for warning in summary.warnings:
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(summary_table(summary, settings.out))
    try:
        if settings.page:
            show_pages(PageSettings(out=settings.out))
    finally:
        _exit_unless_done(summary, settings)


def label(settings: LabelSettings, show: Show) -> "RunSummary":
    """Label an archive and show the progress."""
    from microaction.labeling.run import run_labeling

    formatter = ProgressFormatter()
    return run_labeling(settings, on_progress=lambda progress: show(*formatter(progress)))


def _exit_unless_done(summary: "RunSummary", settings: LabelSettings) -> None:
    num_failures = summary.publication.num_failures
    if summary.num_to_retry:
        console.print(
            f"{summary.num_to_retry} chunks or videos failed for transient reasons (see failures/): the same command retries "
            "them",
            style="red",
            soft_wrap=True,
        )
        sys.exit(EXIT_RETRY)
    if settings.max_failed is not None and num_failures > settings.max_failed:
        spans = "span" if num_failures == 1 else "spans"
        console.print(
            f"{num_failures} {spans} could not be labeled, more than max_failed ({settings.max_failed}): see failures/; "
            "--retry-failed retries them",
            style="red",
            soft_wrap=True,
        )
        sys.exit(EXIT_TOO_MANY_FAILED)


class ProgressFormatter:
    """Turns a run's progress into (done, total, text); remembers the last minute, for the rates."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Progress]] = deque()

    def __call__(self, progress: "Progress") -> tuple[float, float, str]:
        """Return what to show of a run's progress."""
        if progress.stage == "people":
            text = f"looking for people: {_hours(progress.done)} of {_hours(progress.total)} of video"
            return progress.done, progress.total, text
        if progress.stage != "label":
            self._past.clear()
            return progress.done, progress.total, f"{progress.stage}: {progress.done} of {progress.total} videos"
        now_s = time.monotonic()
        self._past.append((now_s, progress))
        while now_s - self._past[0][0] > RATE_WINDOW_S and len(self._past) > 2:
            self._past.popleft()
        then_s, then = self._past[0]
        text = f"{_hours(progress.video_s)} of {_hours(progress.total_video_s)} of video"
        if now_s > then_s:
            if progress.num_windows:
                windows_per_s = (progress.num_windows - then.num_windows) / (now_s - then_s)
                text += f", {windows_per_s:.1f} windows/s"
            if (video_per_s := (progress.video_s - then.video_s) / (now_s - then_s)) > 0:
                text += f", {_hours((progress.total_video_s - progress.video_s) / video_per_s)} left"
        if progress.num_failed:
            text += f", {progress.num_failed} chunks failed"
        return progress.video_s, progress.total_video_s, text


def _hours(seconds: float) -> str:
    """Return 1:02:03 h, or 2:03 min."""
    minutes, whole_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{whole_s:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{whole_s:02d} h"


def _device_hours(hours: float, device: str) -> str:
    """Return 2.50 core-hours, or 9 core-seconds."""
    return f"{hours:.2f} {device}-hours" if hours >= 0.01 else f"{round(3600 * hours)} {device}-seconds"


def _gib(num_bytes: int) -> str:
    """Return 2.5 GiB, or 9.1 MiB."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 0.1 * 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def summary_table(summary: "RunSummary", out: str) -> Table:
    """Return what a run did."""
    publication = summary.publication
    table = Table(title="Labels", show_header=False)
    table.add_row("videos", str(publication.num_videos))
    table.add_row("length", _hours(publication.video_s))
    table.add_row("labeled", _hours(publication.covered_s))
    if publication.num_people:
        table.add_row("people", str(publication.num_people))
    if publication.num_windows:  # a detector has none
        table.add_row("windows", str(publication.num_windows))
        table.add_row("abstained windows", str(publication.num_abstained))
    table.add_row("events", str(publication.num_events))
    table.add_row("failures (see failures/)", str(publication.num_failures))
    table.add_row("passed over", summary.passed_over)
    table.add_row("chunks labeled now / committed before", f"{summary.num_chunks} / {summary.num_committed_before}")
    if summary.num_windows_now:
        table.add_row("windows labeled now, per second", f"{summary.num_windows_now / summary.label_s:.1f}")
    table.add_row("written to", out)
    table.add_row("as version", publication.version)
    return table


def plan_table(plan: "Estimate") -> Table:
    """Return what there is to do."""
    table = Table(title="Plan", show_header=False)
    table.add_row("videos", f"{plan.num_videos}, {plan.num_unreadable} of them unreadable")
    table.add_row("passed over", plan.passed_over)
    table.add_row("length", _hours(3600 * plan.video_h))
    table.add_row(
        "chunks",
        f"{plan.num_chunks}: {plan.num_committed} committed, {plan.num_todo} to do ({_hours(3600 * plan.todo_h)})",
    )
    table.add_row("failed before", str(plan.num_failed_before))
    table.add_row("windows to label", str(plan.num_windows))
    if plan.num_known_people:
        table.add_row("people found so far", str(plan.num_known_people))
    if plan.num_people is not None:
        table.add_row("people at once, in a sample", f"{plan.num_people:.1f}")
        table.add_row("looking for people", _device_hours(plan.look_core_h, "core"))
    if plan.bytes_to_read is None or plan.decode_core_h is None:
        table.add_row("decoding", "unknown: none of the sampled chunks could be decoded")
    else:
        table.add_row("bytes to read", _gib(plan.bytes_to_read))
        table.add_row("decoding", _device_hours(plan.decode_core_h, "core"))
    table.add_row("network, not compiled", _device_hours(plan.device_h, plan.device))
    table.add_row("memory per decode task", f"{plan.bytes_per_decode_task / 2**20:.0f} MiB")
    return table
