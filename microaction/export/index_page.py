"""The pages about an archive: hours, people, failures, rates of actions, and all videos."""

import math
from collections.abc import Iterator
from itertools import islice

from microaction.export.archive_summary import ActionRate, ArchiveSummary, VideoEntry
from microaction.export.labels import Labels
from microaction.pages import clock, printable, render
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video.windows import microseconds

TEMPLATES = "microaction.export"
INDEX_PAGE = "index.html"
VIDEOS_PER_INDEX = 1000
MAX_UNSURE = 20
MAX_PROBLEMS = 3


def index_pages(labels: Labels, summary: ArchiveSummary) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the pages about an archive; the first has all but the rest of the videos."""
    num_pages = max(1, -(-len(summary.entries) // VIDEOS_PER_INDEX))
    names = [INDEX_PAGE, *(f"index-{number}.html" for number in range(2, num_pages + 1))]
    entries = iter(summary.entries)
    rates = summary.rates()
    max_rate = max((rate.per_hour if math.isnan(rate.high) else rate.high for rate in rates), default=1.0)
    for number, name in enumerate(names, start=1):
        yield (
            name,
            render(
                TEMPLATES,
                "index.html.j2",
                archive=printable(labels.archive),
                model=printable(labels.model),
                page=number,
                pages=list(enumerate(names, start=1)),
                summary=summary,
                hours=_hours,
                rates=[_rate_row(rate, max_rate) for rate in rates] if number == 1 else [],
                unsure=[_video_row(entry) for entry in summary.most_unsure(MAX_UNSURE)] if number == 1 else [],
                failures=_failure_rows(summary) if number == 1 else [],
                videos=[_video_row(entry) for entry in islice(entries, VIDEOS_PER_INDEX)],
            ),
        )


def _rate_row(rate: ActionRate, max_rate: float) -> dict[str, object]:
    """Return a row of the table of rates; bars are in percent of the largest rate."""
    has_interval = not math.isnan(rate.low)
    return {
        "action": ACTIONS[rate.action_id],
        "body_part": BODY_PARTS[BODY_PART_OF[rate.action_id]],
        "num_events": rate.num_events,
        "num_videos": rate.num_videos,
        "total": _hours(rate.total_s),
        "per_hour": rate.per_hour,
        "interval": f"{rate.low:.1f} to {rate.high:.1f}" if has_interval else "",
        "bar": 100 * rate.per_hour / max_rate,
        "low": 100 * rate.low / max_rate if has_interval else 100 * rate.per_hour / max_rate,
        "high": 100 * rate.high / max_rate if has_interval else 100 * rate.per_hour / max_rate,
    }


def _failure_rows(summary: ArchiveSummary) -> list[dict[str, object]]:
    return [
        {
            "kind": printable(kind),
            "count": count,
            "length": _hours(summary.failed_s_of[kind]),
            "example": printable(summary.example_of[kind]),
        }
        for kind, count in summary.num_failures.most_common()
    ]


def _video_row(entry: VideoEntry) -> dict[str, object]:
    problems = [printable(problem) for problem in entry.problems]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
    per_minute = entry.num_events / (entry.covered_s / 60) if entry.covered_s else None
    return {
        "name": printable(entry.name),
        "page": entry.page,
        "length": "unknown" if entry.duration_s is None else clock(microseconds(entry.duration_s)),
        "num_people": entry.num_people,
        "num_events": entry.num_events,
        "per_minute": per_minute,
        "coverage": entry.coverage,
        "expected_error_rate": entry.expected_error_rate,
        "expected_errors": entry.expected_errors,
        "problems": problems,
    }


def _hours(seconds: float) -> str:
    """Return 12 s, 3.4 min or 1,234.5 h."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds / 60, 1) < 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"
