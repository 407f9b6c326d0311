"""The label stage of detectors: chunks' frames in, features of every step out. Knows no Ray.

Shapes: W steps of a chunk, with those around them, N frames, C channels of the first layer.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from microaction.errors import FailureKind
from microaction.labeling.feature_tracks import Track
from microaction.labeling.labeler import load_on_device
from microaction.labeling.ledger_rows import committed_table, reason_of_network
from microaction.models import ModelRef
from microaction.models.classifier import Execution
from microaction.models.detector.detection_network import DetectionNetwork
from microaction.models.detector.inference import FeatureExtractor
from microaction.video.windows import STEP_US, Span, num_steps_of


class FeatureLabeler:
    """The label stage: holds the backbone and turns each chunk's frames into what is stored of its steps."""

    def __init__(
        self,
        model: ModelRef,
        execution: Execution,
        batch_frames: int,
        num_threads: int,
        *,
        records_errors: bool = False,
    ) -> None:
        """With `records_errors`, chunks that cannot be labeled become failures; without, they raise."""
        checkpoint = load_on_device(model, num_threads)
        assert isinstance(checkpoint.model, DetectionNetwork)
        self.preprocessing, self.config = checkpoint.config.preprocessing, checkpoint.model.config
        dtype = torch.bfloat16 if execution.precision == "bf16" else torch.float32
        self.extractor = FeatureExtractor(checkpoint.model, self.preprocessing, dtype, batch_frames)
        self.records_errors = records_errors

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Label a batch of decoded chunks (`Decoder`): a table of `schema.COMMITTED_CHUNK`."""
        C = len(batch["error"])
        rows = [{name: column[number] for name, column in batch.items()} for number in range(C)]
        labeled = [self._labeled(row) for row in rows]
        is_lost_C = np.array([bool(failure) for _, _, failure in labeled]) & (batch["error"] == "")
        reasons = {
            "error": np.where(is_lost_C, np.full(C, str(FailureKind.MODEL_ERROR), object), batch["error"]),
            "reason": np.where(is_lost_C, np.array([*(each[2] for each in labeled)], object), batch["reason"]),
        }
        empty: list[list[int]] = [[]] * C
        labels = {
            "num_windows": [sum(track.num_steps for track in tracks) for tracks, _, _ in labeled],
            **dict.fromkeys(("window_start_us", "window_end_us", "window_person", "window_run"), empty),
            "probabilities": empty,
            "tracks": [[track._asdict() for track in tracks] for tracks, _, _ in labeled],
            "features": [features for _, features, _ in labeled],
        }
        return committed_table(batch | reasons, labels)

    def _labeled(self, row: dict[str, Any]) -> tuple[list[Track], bytes, str]:
        """Return a chunk's tracks, their features, and why there are none if the network failed."""
        try:
            parts = list(self._tracks(row))
        except Exception as error:
            if not self.records_errors:
                raise
            return [], b"", reason_of_network(error)
        return [track for track, _ in parts], b"".join(features.tobytes() for _, features in parts), ""

    def _tracks(self, row: dict[str, Any]) -> Iterator[tuple[Track, np.ndarray]]:
        """Yield the tracks of a chunk, by person and time, and their features [T, C] (float16)."""
        start_us_W, person_W, is_owned_W = (row[f"window_{name}"] for name in ("start_us", "person", "is_owned"))
        seen_W2 = row["window_seen_us"].reshape(-1, 2)
        spans = sorted({(int(person), *seen) for person, seen in zip(person_W, seen_W2.tolist(), strict=True)})
        for person, *seen in spans:
            is_its_W = (person_W == person) & (seen_W2 == seen).all(axis=1)
            step_T = (start_us_W[is_its_W] - seen[0]) // STEP_US
            owned_T = step_T[is_owned_W[is_its_W].astype(bool)]
            if len(owned_T):
                frame_T = row["window_frames"][is_its_W][:, 0]
                yield from self._track(row["frames"], Span(*seen), person, step_T, frame_T, owned_T)

    def _track(
        self,
        frames_NHWC: np.ndarray,
        seen: Span,
        person: int,
        step_T: np.ndarray,
        frame_T: np.ndarray,
        owned_T: np.ndarray,
    ) -> Iterator[tuple[Track, np.ndarray]]:
        num_steps = num_steps_of(seen.end_us - seen.start_us)
        owned = range(int(owned_T[0]), int(owned_T[-1]) + 1)
        needed = self.config.needed_steps(owned, num_steps)
        rows = torch.full((len(needed),), len(frames_NHWC), dtype=torch.int64)
        is_needed_T = (step_T >= needed.start) & (
            step_T < needed.stop
        )  # of what was decoded around more steps than are left
        places = torch.from_numpy(step_T[is_needed_T].astype(np.int64) - needed.start)
        rows[places] = torch.from_numpy(frame_T[is_needed_T].astype(np.int64))
        if len(places) < len(needed):
            # What could not be decoded is a frame without contents: features around it do not depend on where the video is cut.
            blank = np.full((1, *frames_NHWC.shape[1:]), self.preprocessing.padding_color, np.uint8)
            frames_NHWC = np.concatenate([frames_NHWC, blank])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the object store's memory is read-only, and only read here
            pixels = torch.from_numpy(frames_NHWC)
        features_TC = self.extractor(pixels, rows, needed.start, owned, num_steps).numpy()
        for run in np.split(owned_T, np.flatnonzero(np.diff(owned_T) != 1) + 1):
            first, last = int(run[0]), int(run[-1])
            end_us = min(seen.start_us + (last + 1) * STEP_US, seen.end_us)
            track = Track(person, seen.start_us, first, last + 1 - first, end_us)
            yield track, features_TC[first - owned.start : last + 1 - owned.start]
