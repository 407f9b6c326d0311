"""The label stage: chunks' frames in, rows of the ledger out. Knows no Ray."""

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from microaction.errors import FailureKind
from microaction.labeling.ledger_rows import committed_table, reason_of_network
from microaction.labeling.reuse import Windows
from microaction.models import Checkpoint, ModelRef, load_checkpoint
from microaction.models.classifier import Classifier, Execution


class Labeler:
    """The label stage: holds the network and turns each chunk's frames into the probabilities of its windows."""

    def __init__(
        self,
        model: ModelRef,
        execution: Execution,
        batch_windows: int,
        num_threads: int,
        *,
        records_errors: bool = False,
    ) -> None:
        """With `records_errors`, chunks that cannot be labeled become failures; without, they raise."""
        self.classify = Classifier(load_on_device(model, num_threads), execution, batch_windows)
        self.records_errors = records_errors

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Label a batch of decoded chunks (`Decoder`), whose windows share forward passes: a table of
        `schema.COMMITTED_CHUNK`."""
        try:
            keypoints_WMTK3 = joined_keypoints(batch["keypoints"], batch["keypoints_shape"])
            probabilities_WK = self._probabilities(batch["frames"], batch["window_frames"], keypoints_WMTK3)
        except Exception as error:
            if not self.records_errors:
                raise
            batch, probabilities_WK = _unlabeled(batch, error), np.empty((0, self.classify.num_classes), np.float32)
        num_windows_C = [len(windows_WT) for windows_WT in batch["window_frames"]]
        windows_C = _with_reused(batch, np.split(probabilities_WK, np.cumsum(num_windows_C)[:-1]))
        labels = {
            "num_windows": [len(windows.start_us_W) for windows in windows_C],
            "window_start_us": _lists(windows.start_us_W for windows in windows_C),
            "window_end_us": _lists(windows.end_us_W for windows in windows_C),
            "window_person": _lists(windows.person_W for windows in windows_C),
            "probabilities": _lists(windows.probabilities_WK for windows in windows_C),
            "window_run": _lists(windows.run_W for windows in windows_C),
        }
        return committed_table(batch, labels)

    def _probabilities(
        self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray, keypoints_WMTK3: np.ndarray
    ) -> np.ndarray:
        offsets_C = np.cumsum([0, *(len(frames_NHWC) for frames_NHWC in frames_of_chunks)])
        frames_NHWC = frames_of_chunks[0] if len(frames_of_chunks) == 1 else np.concatenate(list(frames_of_chunks))
        windows_WT = np.concatenate(
            [windows.astype(np.int64) + offset for windows, offset in zip(windows_of_chunks, offsets_C, strict=False)]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the object store's memory is read-only, and only read here
            frames = torch.from_numpy(frames_NHWC)
        return self.classify(frames, torch.from_numpy(windows_WT), torch.from_numpy(keypoints_WMTK3)).numpy()


def load_on_device(model: ModelRef, num_threads: int) -> Checkpoint:
    """Load the checkpoint onto this process's GPU, or for so many of its cores."""
    if torch.cuda.is_available():
        return load_checkpoint(model, device="cuda")
    torch.set_num_threads(min(num_threads, len(os.sched_getaffinity(0))))
    return load_checkpoint(model)


def joined_keypoints(flat_C: Iterable[np.ndarray], shape_C: Iterable[np.ndarray]) -> np.ndarray:
    """Return the keypoints [W, M, T, K, 3] of all windows of chunks, M being the most people that a chunk has.

    `flat_C` are the numbers and `shape_C` the shapes of each chunk's; chunks without windows have none.
    """
    parts = [
        flat.reshape(shape.tolist())
        for flat, shape in ((np.asarray(flat), np.asarray(shape)) for flat, shape in zip(flat_C, shape_C, strict=True))
        if shape[0]
    ]
    if not parts:
        return np.zeros((0, 0, 0, 0, 3), np.float32)
    num_people = max(part.shape[1] for part in parts)
    joined: np.ndarray = np.concatenate(
        [np.pad(part, ((0, 0), (0, num_people - part.shape[1]), (0, 0), (0, 0), (0, 0))) for part in parts]
    )
    return joined


def batch_of(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return decoded chunks as the batch that a `Labeler` takes."""
    return {name: _object_column([row[name] for row in rows]) for name in rows[0]}


def _unlabeled(batch: dict[str, np.ndarray], error: Exception) -> dict[str, np.ndarray]:
    """Return the same chunks without their new windows, and with the reason why."""
    C = len(batch["error"])
    of_windows = ("window_start_us", "window_end_us", "window_person", "window_frames")
    empty = {name: _object_column([part[:0] for part in batch[name]]) for name in of_windows}
    reason = reason_of_network(error)
    is_decoded_C = batch["error"] == ""
    return (
        batch
        | empty
        | {
            "error": np.where(is_decoded_C, np.full(C, str(FailureKind.MODEL_ERROR), object), batch["error"]),
            "reason": np.where(is_decoded_C, np.full(C, reason, object), batch["reason"]),
        }
    )


def _object_column(parts: Sequence[Any]) -> np.ndarray:
    column = np.empty(len(parts), object)
    column[:] = parts
    return column


def _with_reused(batch: dict[str, np.ndarray], probabilities_CWK: list[np.ndarray]) -> list[Windows]:
    """Return each chunk's windows: those labeled now, and those reused from another run."""
    windows_C = []
    for row, probabilities_WK in enumerate(probabilities_CWK):
        starts_us_W = batch["window_start_us"][row]
        this_run = np.zeros(len(starts_us_W), np.int32)
        ends_us_W, person_W = (batch[name][row] for name in ("window_end_us", "window_person"))
        windows = Windows(starts_us_W, ends_us_W, person_W, probabilities_WK, this_run)
        reused_us_W = batch["reused_start_us"][row]
        if len(reused_us_W):
            reused_WK = batch["reused_probabilities"][row].reshape(len(reused_us_W), -1)
            ends_us_W, person_W, run_W = (batch[f"reused_{name}"][row] for name in ("end_us", "person", "run"))
            reused = Windows(reused_us_W, ends_us_W, person_W, reused_WK, run_W)
            windows = windows.merged(reused)
        windows_C.append(windows)
    return windows_C


def _lists(arrays: Iterable[np.ndarray]) -> pa.Array:
    """Return a list per array, of all its numbers."""
    flat = [np.ravel(array) for array in arrays]
    offsets = np.cumsum([0, *(len(array) for array in flat)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(flat)))
