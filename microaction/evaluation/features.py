"""A detector's features of whole videos: decoded by the cluster's tasks, computed here.

Shapes: T steps of a video, C features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from microaction.clips.steps import StepFrames, VideoFacts, VideoPart, read_steps
from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.inference import FeatureExtractor
from microaction.preprocessing import Preprocessing
from microaction.video import Region

STEPS_PER_PART = 960  # of a video that are decoded together: two minutes
FRAMES_PER_BATCH = {"cuda": 256, "cpu": 16}  # of the backbone


class VideoFeatures(NamedTuple):
    """The features [T, C] (float16) of a whole video, or the reason why there are none."""

    features_TC: np.ndarray
    reason: str = ""


class VideoFile(NamedTuple):
    """A video's file, what is known of it, and the part of its frames that counts."""

    uri: str
    facts: VideoFacts
    region: Region | None = None


def compute_features(
    videos: Sequence[VideoFile], extractor: FeatureExtractor, preprocessing: Preprocessing
) -> Iterator[VideoFeatures]:
    """Yield the features of videos, in order. Needs a running Ray."""
    parts = [_parts_of(video, extractor.config) for video in videos]
    reasons: dict[str, str] = {}
    decoded = read_steps(
        [part for of_video in parts for _, part in of_video],
        preprocessing,
        on_unreadable=lambda error: reasons.update({error.uri: error.reason}),
    )
    for video, of_video in zip(videos, parts, strict=True):
        features = [_features(next(decoded), owned, part, video.facts, extractor) for owned, part in of_video]
        reason = video.facts.reason or reasons.get(video.uri, "")
        if reason:
            yield VideoFeatures(np.empty((0, 0), np.float16), reason)
        else:
            yield VideoFeatures(np.concatenate(features))


def _parts_of(video: VideoFile, config: DetectorConfig) -> list[tuple[range, VideoPart]]:
    """Return the parts in which a video's features are computed: the steps of each, and those that it needs."""
    parts, num_steps = [], video.facts.num_steps
    for start in range(0, num_steps, STEPS_PER_PART):
        owned = range(start, min(start + STEPS_PER_PART, num_steps))
        needed = config.needed_steps(owned, num_steps)
        parts.append((owned, VideoPart(video.uri, needed, video.facts.duration_us, region=video.region)))
    return parts


def _features(
    frames: StepFrames | None, owned: range, part: VideoPart, facts: VideoFacts, extractor: FeatureExtractor
) -> np.ndarray:
    if frames is None:
        return np.empty((0, 0), np.float16)
    pixels, row_T = (torch.from_numpy(np.array(array)) for array in frames)  # copies: Ray's arrays are read-only
    features = extractor.features(pixels, row_T, part.steps.start, owned, facts.num_steps)
    found: np.ndarray = features.half().cpu().numpy()
    return found
