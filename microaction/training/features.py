"""Features of a run's videos: computed once where the backbone does not learn, a file per video, which any start reads again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy
import torch

from microaction import storage
from microaction.clips.steps import StepFrames, VideoPart, read_steps
from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.inference import FeatureExtractor
from microaction.preprocessing import Preprocessing
from microaction.training.detection_data import TrainingVideo
from microaction.video import DecodeError

FEATURES_FOLDER = "features"
STEPS_PER_PART = 960  # of a video that are decoded together: two minutes


@dataclass(frozen=True)
class FeatureStore:
    """Features [T, C] (float16) of whole videos, in a folder; their names say what they are a function of."""

    folder: str
    backbone_digest: str

    def uri_of(self, video: TrainingVideo) -> str:
        """Return where a video's features are."""
        identity = [video.video.uri, *video.facts, self.backbone_digest]
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


def parts_of(video: TrainingVideo, config: DetectorConfig) -> list[tuple[range, VideoPart]]:
    """Return the parts in which a whole video's features are computed: the steps of each, and those that it needs."""
    parts = []
    for start in range(0, video.num_steps, STEPS_PER_PART):
        owned = range(start, min(start + STEPS_PER_PART, video.num_steps))
        needed = config.needed_steps(owned, video.num_steps)
        parts.append((owned, VideoPart(video.video.uri, needed, video.facts.duration_us)))
    return parts


def compute_features(
    videos: Sequence[TrainingVideo], extractor: FeatureExtractor, preprocessing: Preprocessing
) -> Iterator[tuple[TrainingVideo, np.ndarray, str]]:
    """Yield each video, its features [T, C] (float16), and the reason if it cannot be read completely, in order.

    Needs a running Ray, whose tasks decode.
    """
    config, parts = extractor.config, [parts_of(video, extractor.config) for video in videos]
    reasons: dict[str, str] = {}
    decoded = read_steps(
        [part for of_video in parts for _, part in of_video],
        preprocessing,
        on_unreadable=lambda error: reasons.update({error.uri: error.reason}),
    )
    for video, of_video in zip(videos, parts, strict=True):
        features = [_features(next(decoded), owned, part, video, extractor) for owned, part in of_video]
        reason = reasons.get(video.video.uri, "")
        yield video, np.empty((0, config.num_classes), np.float16) if reason else np.concatenate(features), reason


def _features(
    frames: StepFrames | None, owned: range, part: VideoPart, video: TrainingVideo, extractor: FeatureExtractor
) -> np.ndarray:
    if frames is None:
        return np.empty((0, 0), np.float16)
    pixels, row_T = (torch.from_numpy(np.array(array)) for array in frames)  # copies: Ray's arrays are read-only
    features = extractor.features(pixels, row_T, part.steps.start, owned, video.num_steps)
    found: np.ndarray = features.half().cpu().numpy()
    return found
