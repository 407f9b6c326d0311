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

    def missing(self, videos: Sequence[TrainingVideo]) -> list[TrainingVideo]:
        """Return the videos whose features are not stored."""
        try:
            stored = {file.uri for file in storage.list_files(self.folder)}
        except FileNotFoundError:
            stored = set()
        return [video for video in videos if storage.absolute(self.uri_of(video)) not in stored]

    def write(self, video: TrainingVideo, features_TC: np.ndarray, reason: str = "") -> None:
        """Store a video's features, or the reason why there are none."""
        content = safetensors.numpy.save({"features": features_TC}, metadata={"reason": reason})
        storage.write_bytes(self.uri_of(video), content)

    def read(self, video: TrainingVideo) -> np.ndarray:
        """Return a video's features. Raises `DecodeError` for a video that could not be decoded."""
        data = storage.read_bytes(self.uri_of(video))
        features_TC: np.ndarray = safetensors.numpy.load(data)["features"]
        if len(features_TC) == 0:
            length = int.from_bytes(data[:8], "little")
            raise DecodeError(video.video.uri, json.loads(data[8 : 8 + length])["__metadata__"]["reason"])
        return features_TC


def digest_of_backbone(weights: bytes, config: DetectorConfig, preprocessing: Preprocessing) -> str:
    """Return the digest of all that decides features, besides the video."""
    described = json.dumps([config.backbone.model_dump(mode="json"), preprocessing.model_dump(mode="json")])
    return hashlib.sha256(weights + described.encode()).hexdigest()
