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

STEPS_PER_PART = 960  # of a video that are decoded together: two minutes
FRAMES_PER_BATCH = {"cuda": 256, "cpu": 16}  # of the backbone


class VideoFeatures(NamedTuple):
    """The features [T, C] (float16) of a whole video, or the reason why there are none."""

    features_TC: np.ndarray
    reason: str = ""


def compute_features(
    videos: Sequence[tuple[str, VideoFacts]], extractor: FeatureExtractor, preprocessing: Preprocessing
) -> Iterator[VideoFeatures]:
    """Yield the features of videos, each a URI and its facts, in order. Needs a running Ray."""
    parts = [_parts_of(uri, facts, extractor.config) for uri, facts in videos]
    reasons: dict[str, str] = {}
    decoded = read_steps(
        [part for of_video in parts for _, part in of_video],
        preprocessing,
        on_unreadable=lambda error: reasons.update({error.uri: error.reason}),
    )
    for (uri, facts), of_video in zip(videos, parts, strict=True):
        features = [_features(next(decoded), owned, part, facts, extractor) for owned, part in of_video]
        reason = facts.reason or reasons.get(uri, "")
        if reason:
            yield VideoFeatures(np.empty((0, 0), np.float16), reason)
        else:
            yield VideoFeatures(np.concatenate(features))


def _parts_of(uri: str, facts: VideoFacts, config: DetectorConfig) -> list[tuple[range, VideoPart]]:
    """Return the parts in which a video's features are computed: the steps of each, and those that it needs."""
    parts = []
    for start in range(0, facts.num_steps, STEPS_PER_PART):
        owned = range(start, min(start + STEPS_PER_PART, facts.num_steps))
        parts.append((owned, VideoPart(uri, config.needed_steps(owned, facts.num_steps), facts.duration_us)))
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
