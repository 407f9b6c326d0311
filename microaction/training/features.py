"""Features of a run's videos: computed once where the backbone does not learn, a file per video, which any start reads again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy

from microaction import storage
from microaction.models.detector.config import DetectorConfig
from microaction.preprocessing import Preprocessing
from microaction.training.detection_data import TrainingVideo
from microaction.video import DecodeError

FEATURES_FOLDER = "features"


@dataclass(frozen=True)
class FeatureStore:
    """Features [T, C] (float16) of whole videos, in a folder; their names say what they are a function of."""

    folder: str
    backbone_digest: str

    def uri_of(self, video: TrainingVideo) -> str:
        """Return where a video's features are."""
        identity = [video.video.uri, *video.facts, video.region, self.backbone_digest]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return storage.join(self.folder, f"{name}.safetensors")

    def missing(self, videos: Sequence[TrainingVideo], *, retry: bool) -> list[TrainingVideo]:
        """Return the videos whose features are not stored; with `retry`, those too that could not be decoded."""
        try:
            stored = {file.uri for file in storage.list_files(self.folder)}
        except FileNotFoundError:
            stored = set()
        return [
            video
            for video in videos
            if storage.absolute(self.uri_of(video)) not in stored
            and (retry or storage.absolute(self._reason_uri(video)) not in stored)
        ]

    def write(self, video: TrainingVideo, features_TC: np.ndarray, reason: str = "") -> None:
        """Store a video's features, or the reason why there are none."""
        if reason:
            storage.write_bytes(self._reason_uri(video), reason.encode())
        else:
            storage.write_bytes(self.uri_of(video), safetensors.numpy.save({"features": features_TC}))

    def read(self, video: TrainingVideo, steps: range | None = None) -> np.ndarray:
        """Return a video's features, of some steps or of all. Raises `DecodeError` for a video that could not be decoded."""
        uri = self.uri_of(video)
        part = slice(None) if steps is None else slice(steps.start, steps.stop)
        try:
            if not storage.is_remote(uri):
                with safetensors.safe_open(uri, "numpy") as file:
                    found: np.ndarray = file.get_slice("features")[part]
                    return found
            whole: np.ndarray = safetensors.numpy.load(storage.read_bytes(uri))["features"]
            return whole[part].copy()
        except FileNotFoundError:
            raise DecodeError(video.video.uri, storage.read_bytes(self._reason_uri(video)).decode()) from None

    def _reason_uri(self, video: TrainingVideo) -> str:
        return f"{self.uri_of(video)}.unreadable"


def digest_of_backbone(weights: bytes, config: DetectorConfig, preprocessing: Preprocessing, dtype: str) -> str:
    """Return the digest of all that decides features, besides the video; `dtype` is what the backbone computes in."""
    described = json.dumps([config.backbone.model_dump(mode="json"), preprocessing.model_dump(mode="json"), dtype])
    return hashlib.sha256(weights + described.encode()).hexdigest()
