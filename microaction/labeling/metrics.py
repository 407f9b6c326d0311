"""What labelling tells Ray's Prometheus endpoint: names that dashboards and alerts hang on."""

import time

import numpy as np
from ray.util.metrics import Counter, Gauge

from microaction.video.windows import MICROSECONDS

BUSY_SHARE_OVER_S = 60


class Metrics:
    """What a labeler, or the driver, tells Ray's Prometheus endpoint of its work."""

    def __init__(self) -> None:
        self._windows = Counter("microaction_label_windows_total", "Windows labelled.")
        self._frames = Counter("microaction_label_frames_total", "Frames decoded for windows.")
        self._video_s = Counter("microaction_label_video_seconds_total", "Seconds of video done, labelled or failed.")
        self._bytes = Counter("microaction_label_read_bytes_total", "Bytes of video files read.")
        self._chunks = Counter("microaction_label_chunks_total", "Chunks done, labelled or failed.")
        self._failures = Counter("microaction_label_failed_chunks_total", "Chunks that failed.", tag_keys=("error",))
        self._busy_share = Gauge(
            "microaction_label_busy_share", "Share of its time in which a labeler runs the network."
        )
        self._since_s, self._busy_s = time.monotonic(), 0.0

    def count(self, batch: dict[str, np.ndarray], *, busy_s: float) -> None:
        """One batch of chunks and how long the network ran for it."""
        _add(self._windows, sum(len(windows) for windows in batch["window_frames"]))
        _add(self._frames, sum(len(frames) for frames in batch["frames"]))
        _add(self._video_s, float((batch["chunk_end_us"] - batch["chunk_start_us"]).sum()) / MICROSECONDS)
        _add(self._bytes, int(batch["num_bytes"].sum()))
        _add(self._chunks, len(batch["error"]))
        for error in batch["error"][batch["error"] != ""]:
            self._failures.inc(1, {"error": str(error)})
        self._busy_s += busy_s
        elapsed_s = time.monotonic() - self._since_s
        self._busy_share.set(min(1.0, self._busy_s / elapsed_s))
        if elapsed_s > BUSY_SHARE_OVER_S:
            self._since_s, self._busy_s = time.monotonic(), 0.0

    def count_died(self, error: str, num_chunks: int, video_s: float) -> None:
        """Chunks that never came back from those who decode or label."""
        _add(self._video_s, video_s)
        _add(self._chunks, num_chunks)
        self._failures.inc(num_chunks, {"error": error})


def _add(counter: Counter, number: float) -> None:
    if number:  # Ray refuses to count nothing
        counter.inc(number)
