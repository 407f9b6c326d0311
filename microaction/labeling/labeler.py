"""The label stage of the pipeline: the model, and what it tells of its work."""

import os
import time
import warnings
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch
from ray.util.metrics import Counter, Gauge

from microaction.labeling.earlier import Windows
from microaction.model import load_checkpoint
from microaction.model.classifier import Classifier, Execution
from microaction.schema import COMMITTED_CHUNK
from microaction.video.windows import MICROSECONDS

BATCH_WINDOWS = {"cuda": 64, "cpu": 8}
BUSY_SHARE_OVER_S = 60


class Labeler:
    """The label stage: an actor that holds the model and turns each chunk's frames into its windows' probabilities."""

    def __init__(self, model_uri: str, execution: Execution, batch_windows: int | None, num_threads: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(min(num_threads, len(os.sched_getaffinity(0))))
        batch_size = batch_windows or BATCH_WINDOWS[device]
        self.classify = Classifier(load_checkpoint(model_uri, device=device), execution, batch_size)
        self.metrics = Metrics()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """`batch` holds chunks; windows of all of them share forward passes."""
        started_s = time.monotonic()
        num_windows_C = [len(windows_WT) for windows_WT in batch["window_frames"]]
        probabilities_WK = self._probabilities(batch["frames"], batch["window_frames"])
        self.metrics.count(batch, busy_s=time.monotonic() - started_s)
        is_failed_C = batch["error"] != ""
        windows_C = _with_kept(batch, np.split(probabilities_WK, np.cumsum(num_windows_C)[:-1]))
        columns = {name: batch[name] for name in COMMITTED_CHUNK.names if name in batch} | {
            "num_windows": [len(windows.start_us_W) for windows in windows_C],
            "window_start_us": _lists(windows.start_us_W for windows in windows_C),
            "window_end_us": _lists(windows.end_us_W for windows in windows_C),
            "probabilities": _lists(windows.probabilities_WK for windows in windows_C),
            "window_run": _lists(windows.run_W for windows in windows_C),
            "stage": pa.array(np.full(len(is_failed_C), "decode"), pa.string(), mask=~is_failed_C),
            "error": pa.array(batch["error"], pa.string(), mask=~is_failed_C),
            "reason": pa.array(batch["reason"], pa.string(), mask=~is_failed_C),
        }
        return pa.table({name: columns[name] for name in COMMITTED_CHUNK.names}).cast(COMMITTED_CHUNK)

    def _probabilities(self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray) -> np.ndarray:
        offsets_C = np.cumsum([0, *(len(frames_NHWC) for frames_NHWC in frames_of_chunks)])
        frames_NHWC = frames_of_chunks[0] if len(frames_of_chunks) == 1 else np.concatenate(list(frames_of_chunks))
        windows_WT = np.concatenate(
            [windows.astype(np.int64) + offset for windows, offset in zip(windows_of_chunks, offsets_C, strict=False)]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the object store's memory is read-only, and only read here
            frames = torch.from_numpy(frames_NHWC)
        return self.classify(frames, torch.from_numpy(windows_WT)).numpy()


def _with_kept(batch: dict[str, np.ndarray], probabilities_CWK: list[np.ndarray]) -> list[Windows]:
    """Each chunk's windows: those labelled now, and those kept of an earlier run."""
    windows_C = []
    for row, probabilities_WK in enumerate(probabilities_CWK):
        starts_us_W = batch["window_start_us"][row]
        now = np.zeros(len(starts_us_W), np.int32)
        windows = Windows(starts_us_W, batch["window_end_us"][row], probabilities_WK, now)
        kept_us_W = batch["kept_start_us"][row]
        if len(kept_us_W):
            kept_WK = batch["kept_probabilities"][row].reshape(len(kept_us_W), -1)
            windows = windows.merged(Windows(kept_us_W, batch["kept_end_us"][row], kept_WK, batch["kept_run"][row]))
        windows_C.append(windows)
    return windows_C


class Metrics:
    """What a labeler tells Ray's Prometheus endpoint of its work."""

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


def _add(counter: Counter, number: float) -> None:
    if number:  # Ray refuses to count nothing
        counter.inc(number)


def _lists(arrays: Iterable[np.ndarray]) -> pa.Array:
    """A list per array, of all its numbers."""
    flat = [np.ravel(array) for array in arrays]
    offsets = np.cumsum([0, *(len(array) for array in flat)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(flat)))
