"""What the first training worker reports to Ray's Prometheus endpoint, and how long it waits for clips."""

import time
from collections.abc import Iterator
from typing import Any

from ray.util.metrics import Counter, Gauge

# The benchmarks' own: they decide which checkpoint is the best.
RECOGNITION_SCORE = "f1_mean"
DETECTION_SCORE = "map_challenge"
_GAUGES = {
    RECOGNITION_SCORE: ("microaction_train_f1_mean", "F1 mean on the validation clips after the last epoch."),
    DETECTION_SCORE: ("microaction_train_map", "mAP on the validation videos after the last epoch."),
}


class Metrics:
    """What the first training worker reports: names that dashboards and alerts depend on."""

    def __init__(self, score: str) -> None:
        self._clips = Counter("microaction_train_clips_total", "Clips that all workers were trained on.")
        self._seconds = Counter("microaction_train_seconds_total", "Seconds of training, without validation.")
        self._waiting = Counter("microaction_train_data_wait_seconds_total", "Of these, seconds of waiting for clips.")
        self._loss = Gauge("microaction_train_loss", "Mean loss of the last epoch.")
        self._score_name, self._score = score, Gauge(*_GAUGES[score])

    def count(self, num_clips: int, seconds: float, waiting_s: float) -> None:
        """Count some steps: their clips over all workers, how long they took, and how much of that was waiting."""
        for counter, number in ((self._clips, num_clips), (self._seconds, seconds), (self._waiting, waiting_s)):
            if number > 0:  # Ray refuses to count nothing
                counter.inc(number)

    def observe_epoch(self, metrics: dict[str, float]) -> None:
        """Set the gauges at the end of an epoch."""
        self._loss.set(metrics["loss"])
        self._score.set(metrics[self._score_name])


class TimedIterator:
    """An iterator over batches that counts the seconds spent waiting for them."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        started_s = time.monotonic()
        try:
            return next(self.batches)
        finally:
            self.seconds += time.monotonic() - started_s
