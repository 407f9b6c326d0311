"""`python -m jobs.label ARCHIVE OUT --model M`: labels every video of an archive; the same command again goes on."""

import sys
import time
from collections import deque

from rich.table import Table

from jobs.cli import (
    EXIT_FAILED,
    EXIT_TOO_MANY_FAILED,
    console,
    parse_settings,
    reported_errors,
    running_ray,
    shown_progress,
)
from microaction.config import LabelSettings
from microaction.labeling.estimate import Estimate
from microaction.labeling.run import Progress, RunSummary, plan_labeling, run_labeling

PACE_OVER_S = 60.0


def main() -> None:
    settings = parse_settings(LabelSettings)
    with reported_errors(), running_ray(), shown_progress("planning" if settings.plan else "labelling") as show:
        shown = Shown()
        if settings.plan:
            plan = plan_labeling(settings, on_progress=lambda progress: show(*shown(progress)))
        else:
            summary = run_labeling(settings, on_progress=lambda progress: show(*shown(progress)))
    if settings.plan:
        console.print(plan_table(plan))
        return
    console.print(summary_table(summary, settings.out))
    num_failures = summary.published.num_failures
    if summary.num_to_retry:
        console.print(
            f"{summary.num_to_retry} chunks or videos failed for reasons that are not theirs (see failures/); the same "
            "command takes them again",
            style="red",
            soft_wrap=True,
        )
        sys.exit(EXIT_FAILED)
    if settings.max_failed is not None and num_failures > settings.max_failed:
        console.print(
            f"{num_failures} spans could not be labelled, more than max_failed ({settings.max_failed}): see failures/, and "
            "--retry-failed takes them again",
            style="red",
            soft_wrap=True,
        )
        sys.exit(EXIT_TOO_MANY_FAILED)


class Shown:
    """Turns a run's progress into (done, total, words); remembers the last minute, which tells the pace."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Progress]] = deque()

    def __call__(self, progress: Progress) -> tuple[float, float, str]:
        if progress.stage != "label":
            self._past.clear()
            return progress.done, progress.total, f"{progress.stage}: {progress.done} of {progress.total} videos"
        now_s = time.monotonic()
        self._past.append((now_s, progress))
        while now_s - self._past[0][0] > PACE_OVER_S and len(self._past) > 2:
            self._past.popleft()
        then_s, then = self._past[0]
        words = f"{_hours(progress.video_s)} of {_hours(progress.total_video_s)} of video"
        if now_s > then_s:
            windows_per_s = (progress.num_windows - then.num_windows) / (now_s - then_s)
            words += f", {windows_per_s:.1f} windows/s"
            if (video_per_s := (progress.video_s - then.video_s) / (now_s - then_s)) > 0:
                words += f", {_hours((progress.total_video_s - progress.video_s) / video_per_s)} left"
        if progress.num_failed:
            words += f", {progress.num_failed} chunks failed"
        return progress.video_s, progress.total_video_s, words


def _hours(seconds: float) -> str:
    """1:02:03 h, or 2:03 min."""
    minutes, whole_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{whole_s:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{whole_s:02d} h"


def summary_table(summary: RunSummary, out: str) -> Table:
    published = summary.published
    table = Table(title="Labels", show_header=False)
    table.add_row("videos", str(published.num_videos))
    table.add_row("length", _hours(published.video_s))
    table.add_row("labelled", _hours(published.covered_s))
    table.add_row("windows", str(published.num_windows))
    table.add_row("of them abstained", str(published.num_abstained))
    table.add_row("events", str(published.num_events))
    table.add_row("failures (see failures/)", str(published.num_failures))
    table.add_row("chunks labelled now / done before", f"{summary.num_chunks} / {summary.num_committed_before}")
    if summary.num_windows_now:
        table.add_row("windows labelled now, per second", f"{summary.num_windows_now / summary.label_s:.1f}")
    table.add_row("written to", out)
    table.add_row("as version", published.version)
    return table


def plan_table(plan: Estimate) -> Table:
    table = Table(title="What is to do", show_header=False)
    table.add_row("videos", f"{plan.num_videos}, of which {plan.num_unreadable} cannot be read")
    table.add_row("length", f"{plan.video_h:.1f} h")
    table.add_row(
        "chunks", f"{plan.num_chunks}: {plan.num_committed} committed, {plan.num_todo} to do ({plan.todo_h:.1f} h)"
    )
    table.add_row("failed before", str(plan.num_failed_before))
    table.add_row("windows to come", str(plan.num_windows))
    if plan.bytes_to_read is None or plan.decode_core_h is None:
        table.add_row("decoding", "unknown: none of the sampled chunks could be decoded")
    else:
        table.add_row("to read", f"{plan.bytes_to_read / 2**30:.1f} GiB")
        table.add_row("decoding", f"{plan.decode_core_h:.2f} core-hours")
    table.add_row("the network, not compiled", f"{plan.device_h:.2f} {plan.device}-hours")
    table.add_row("memory of a decode task", f"{plan.bytes_per_decode_task / 2**20:.0f} MiB")
    return table


if __name__ == "__main__":
    main()
