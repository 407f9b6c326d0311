"""What labeling reports to Ray's Prometheus endpoint: names that dashboards and alerts depend on."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter, Gauge

from microaction.errors import FailureKind
from microaction.video.windows import MICROSECONDS

BUSY_RATIO_WINDOW_S = 60


class Metrics:
    """What a labeler, or the driver, reports of its work."""

    def __init__(self) -> None:
        self._windows = Counter("microaction_label_windows_total", "Windows labeled.")
        self._frames = Counter("microaction_label_frames_total", "Frames decoded for windows.")
        self._video_s = Counter("microaction_label_video_seconds_total", "Seconds of video done, labeled or failed.")
        self._bytes = Counter("microaction_label_read_bytes_total", "Bytes of video files read.")
        self._chunks = Counter("microaction_label_chunks_total", "Chunks done, labeled or failed.")
        self._failures = Counter("microaction_label_failed_chunks_total", "Chunks that failed.", tag_keys=("error",))
        self._busy_ratio = Gauge(
            "microaction_label_busy_ratio", "Fraction of its time in which a labeler runs the network."
        )
        self._since_s, self._busy_s = time.monotonic(), 0.0

    def count(self, batch: dict[str, np.ndarray], rows: pa.Table, *, busy_s: float) -> None:
        """Count one batch of decoded chunks, the ledger's rows that became of it, and how long the network ran for it."""
        _add(self._windows, sum(run_W.count(0) for run_W in rows["window_run"].to_pylist()))
        _add(self._frames, sum(len(frames) for frames in batch["frames"]))
        _add(self._video_s, float((batch["chunk_end_us"] - batch["chunk_start_us"]).sum()) / MICROSECONDS)
        _add(self._bytes, int(batch["num_bytes"].sum()))
        _add(self._chunks, len(rows))
        for error in pc.drop_null(rows["error"]).to_pylist():
            self._failures.inc(1, {"error": error})
        self._busy_s += busy_s
        elapsed_s = time.monotonic() - self._since_s
        self._busy_ratio.set(min(1.0, self._busy_s / elapsed_s))
        if elapsed_s > BUSY_RATIO_WINDOW_S:
            self._since_s, self._busy_s = time.monotonic(), 0.0

    def count_worker_deaths(self, num_chunks: int, video_s: float) -> None:
        """Count chunks whose workers died."""
        _add(self._video_s, video_s)
        _add(self._chunks, num_chunks)
        self._failures.inc(num_chunks, {"error": str(FailureKind.WORKER_DIED)})


def _add(counter: Counter, number: float) -> None:
    if number:  # Ray refuses to count nothing
        counter.inc(number)
