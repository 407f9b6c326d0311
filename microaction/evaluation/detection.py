"""Agreement of found events with the true instances of untrimmed video."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class TimedAction(NamedTuple):
    """One action in one video over [start_s, end_s); `score` ranks found events, and has no meaning for true ones."""

    video: str
    action_id: int
    start_s: float
    end_s: float
    score: float = 1.0


@dataclass(frozen=True)
class Agreement:
    """Counts of events: true, found, and matched one to one."""

    num_true: int
    num_found: int
    num_matched: int

    @property
    def recall(self) -> float:
        """Fraction of the true events that were found; 0 if there is none."""
        return self.num_matched / self.num_true if self.num_true else 0.0

    @property
    def precision(self) -> float:
        """Fraction of the found events that are true; 0 if nothing was found."""
        return self.num_matched / self.num_found if self.num_found else 0.0


def temporal_iou(a: TimedAction, b: TimedAction) -> float:
    """Return the length of the intersection over the length of the union, in [0, 1]."""
    intersection = max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
    union = (a.end_s - a.start_s) + (b.end_s - b.start_s) - intersection
    return intersection / union if union > 0 else 0.0


def match_events(found: Iterable[TimedAction], truth: Iterable[TimedAction], min_iou: float) -> Agreement:
    """Match found events to true ones of the same video and action whose temporal IoU is at least `min_iou`.

    Greedy, as in detection benchmarks: in order of score, each found event takes the free true event that it overlaps most.
    """
    free: dict[tuple[str, int], list[TimedAction]] = defaultdict(list)
    num_true = num_found = num_matched = 0
    for event in truth:
        free[event.video, event.action_id].append(event)
        num_true += 1
    for event in sorted(found, key=lambda event: -event.score):
        num_found += 1
        candidates = free[event.video, event.action_id]
        best = max(candidates, key=lambda true: temporal_iou(event, true), default=None)
        if best is not None and temporal_iou(event, best) >= min_iou:
            candidates.remove(best)
            num_matched += 1
    return Agreement(num_true, num_found, num_matched)
