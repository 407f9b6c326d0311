"""An archive in numbers, made of one video after the other.

Shapes: V videos, K actions, R resamples.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microaction.export.labels import VideoLabels
from microaction.taxonomy import ACTIONS

NUM_RESAMPLES = 1000
RESAMPLES_AT_ONCE = 50  # of 100,000 videos: 40 MB
LEVEL = 0.95
SECONDS_PER_HOUR = 3600.0
SEED = 0


@dataclass(frozen=True)
class VideoEntry:
    """A video in the index. `expected_error_rate`: the mean of 1 − probability over its events; None without events."""

    name: str
    page: str
    duration_s: float | None
    num_people: int | None
    num_events: int
    covered_s: float
    coverage: float | None
    expected_error_rate: float | None
    problems: tuple[str, ...]

    @classmethod
    def of(cls, video: VideoLabels, page: str) -> "VideoEntry":
        """Return the entry of a video."""
        facts = video.facts
        reasons = Counter(row["reason"] for row in video.failures)
        return cls(
            name=video.name,
            page=page,
            duration_s=facts["duration_s"],
            num_people=facts["num_people"],
            num_events=len(video.events),
            covered_s=facts["covered_s"],
            coverage=facts["coverage"],
            expected_error_rate=(
                1 - float(np.mean([event.probability for event in video.events])) if video.events else None
            ),
            problems=tuple(reason if count == 1 else f"{reason} ({count} times)" for reason, count in reasons.items()),
        )

    @property
    def expected_errors(self) -> float:
        """How many of its events are expected to be wrong."""
        return (self.expected_error_rate or 0.0) * self.num_events


@dataclass(frozen=True)
class ActionRate:
    """An action in an archive: events, seconds, and events per hour of labeled video with an interval."""

    action_id: int
    num_events: int
    total_s: float
    per_hour: float
    low: float
    high: float
    num_videos: int


@dataclass
class ArchiveSummary:
    """The sums over the videos of an archive, as far as they were added."""

    entries: list[VideoEntry] = field(default_factory=list)
    failed_s: float = 0.0
    num_failures: Counter[str] = field(default_factory=Counter)
    failed_s_of: dict[str, float] = field(default_factory=dict)
    example_of: dict[str, str] = field(default_factory=dict)
    num_people: int = 0
    _counts_VK: list[np.ndarray] = field(default_factory=list)
    _seconds_K: np.ndarray = field(default_factory=lambda: np.zeros(len(ACTIONS)))

    def add(self, video: VideoLabels, page: str) -> None:
        """Add a video, which has a page of that name."""
        self.entries.append(VideoEntry.of(video, page))
        self.failed_s += video.facts["failed_s"]
        self.num_people += video.facts["num_people"] or 0
        for row in video.failures:
            self._add_failure(row)
        actions = [event.action_id for event in video.events]
        self._counts_VK.append(np.bincount(actions, minlength=len(ACTIONS)).astype(np.int32))
        for event in video.events:
            self._seconds_K[event.action_id] += event.end_s - event.start_s

    def _add_failure(self, row: Mapping[str, Any]) -> None:
        kind = row["error"]
        self.num_failures[kind] += 1
        seconds = 0.0 if row["end_s"] is None else row["end_s"] - row["start_s"]
        self.failed_s_of[kind] = self.failed_s_of.get(kind, 0.0) + seconds
        self.example_of.setdefault(kind, row["reason"])

    @property
    def duration_s(self) -> float:
        """Seconds of video whose length is known."""
        return sum(entry.duration_s or 0.0 for entry in self.entries)

    @property
    def covered_s(self) -> float:
        """Seconds of video that are labeled."""
        return sum(entry.covered_s for entry in self.entries)

    @property
    def num_events(self) -> int:
        """How many events there are."""
        return sum(entry.num_events for entry in self.entries)

    def rates(self) -> list[ActionRate]:
        """Return the actions that occur, the most frequent first, with bootstrap intervals over videos."""
        if not self.covered_s:
            return []
        covered_V = np.array([entry.covered_s for entry in self.entries])
        counts_VK, hours_V = np.array(self._counts_VK)[covered_V > 0], covered_V[covered_V > 0] / SECONDS_PER_HOUR
        low_K, high_K = bootstrap_rates(counts_VK, hours_V)
        num_events_K, num_videos_K = counts_VK.sum(axis=0), (counts_VK > 0).sum(axis=0)
        return [
            ActionRate(
                action_id,
                int(num_events_K[action_id]),
                float(self._seconds_K[action_id]),
                float(num_events_K[action_id] / hours_V.sum()),
                float(low_K[action_id]),
                float(high_K[action_id]),
                int(num_videos_K[action_id]),
            )
            for action_id in np.argsort(-num_events_K, kind="stable").tolist()
            if num_events_K[action_id]
        ]

    def most_unsure(self, max_videos: int) -> list[VideoEntry]:
        """Return the videos in which most events are expected to be wrong, the worst first."""
        unsure = [entry for entry in self.entries if entry.expected_errors > 0]
        return sorted(unsure, key=lambda entry: (-entry.expected_errors, entry.name))[:max_videos]


def bootstrap_rates(counts_VK: np.ndarray, hours_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of 95% percentile intervals of events per hour [K], over resampled videos; the same for the same input.

    Events of a video depend on each other, and videos do not. With one video there is nothing to resample: both are NaN.
    """
    num_videos = len(hours_V)
    if num_videos < 2:
        return (np.full(counts_VK.shape[1], np.nan),) * 2
    rng = np.random.default_rng(SEED)
    rates_RK = np.empty((NUM_RESAMPLES, counts_VK.shape[1]))
    for first in range(0, NUM_RESAMPLES, RESAMPLES_AT_ONCE):
        some = slice(first, first + RESAMPLES_AT_ONCE)
        chosen_RV = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), RESAMPLES_AT_ONCE)
        rates_RK[some] = (chosen_RV @ counts_VK) / (chosen_RV @ hours_V)[:, None]
    low_K, high_K = np.quantile(rates_RK, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low_K, high_K
