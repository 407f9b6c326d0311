"""The label stage of the pipeline: the model, and what it tells of its work."""

import os
import time
import warnings
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch

from microaction.labeling.earlier import Windows
from microaction.labeling.ledger import LABEL_ERROR
from microaction.labeling.metrics import Metrics
from microaction.model import load_checkpoint
from microaction.model.classifier import Classifier, Execution
from microaction.schema import COMMITTED_CHUNK


class Labeler:
    """The label stage: an actor that holds the model and turns each chunk's frames into its windows' probabilities."""

    def __init__(
        self,
        model_uri: str,
        execution: Execution,
        batch_windows: int,
        num_threads: int,
        *,
        records_errors: bool = False,
    ) -> None:
        """With `records_errors`, chunks that cannot be labelled become failures; without, they raise."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(min(num_threads, len(os.sched_getaffinity(0))))
        self.classify = Classifier(load_checkpoint(model_uri, device=device), execution, batch_windows)
        self.records_errors = records_errors
        self.metrics = Metrics()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """`batch` holds chunks; windows of all of them share forward passes."""
        started_s = time.monotonic()
        try:
            probabilities_WK = self._probabilities(batch["frames"], batch["window_frames"])
        except Exception as error:
            if not self.records_errors:
                raise
            batch, probabilities_WK = _unlabelled(batch, error), np.empty((0, self.classify.num_classes), np.float32)
        num_windows_C = [len(windows_WT) for windows_WT in batch["window_frames"]]
        self.metrics.count(batch, busy_s=time.monotonic() - started_s)
        is_failed_C = batch["error"] != ""
        windows_C = _with_kept(batch, np.split(probabilities_WK, np.cumsum(num_windows_C)[:-1]))
        columns = {name: batch[name] for name in COMMITTED_CHUNK.names if name in batch} | {
            "num_windows": [len(windows.start_us_W) for windows in windows_C],
            "window_start_us": _lists(windows.start_us_W for windows in windows_C),
            "window_end_us": _lists(windows.end_us_W for windows in windows_C),
            "probabilities": _lists(windows.probabilities_WK for windows in windows_C),
            "window_run": _lists(windows.run_W for windows in windows_C),
            "stage": pa.array(
                np.where(batch["error"] == LABEL_ERROR, "label", "decode"), pa.string(), mask=~is_failed_C
            ),
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


def _unlabelled(batch: dict[str, np.ndarray], error: Exception) -> dict[str, np.ndarray]:
    """The same chunks without the windows that were to be labelled, and with the reason why."""
    C = len(batch["error"])
    nothing = {name: _column([part[:0] for part in batch[name]]) for name in ("window_start_us", "window_end_us")}
    nothing["window_frames"] = _column([part[:0] for part in batch["window_frames"]])
    reason = f"{type(error).__name__}: {error}"
    is_whole_C = batch["error"] == ""
    return (
        batch
        | nothing
        | {
            "error": np.where(is_whole_C, np.full(C, LABEL_ERROR, object), batch["error"]),
            "reason": np.where(is_whole_C, np.full(C, reason, object), batch["reason"]),
        }
    )


def _column(parts: list[np.ndarray]) -> np.ndarray:
    column = np.empty(len(parts), object)
    column[:] = parts
    return column


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


def _lists(arrays: Iterable[np.ndarray]) -> pa.Array:
    """A list per array, of all its numbers."""
    flat = [np.ravel(array) for array in arrays]
    offsets = np.cumsum([0, *(len(array) for array in flat)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(flat)))
