"""One labeled clip: which of its frames, and which part of them, a network sees."""

from dataclasses import dataclass

import numpy as np

from microaction import storage
from microaction.preprocessing import Preprocessing
from microaction.video import DecodeError, Framing, Region, decode_frames, probe, segment_indices
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.transforms import multi_scale_crop

CLIP_LIMITS = Limits(time_s=120)


@dataclass(frozen=True)
class Augmentation:
    """Random sampling, as in training: frames, crops and flips depend on (seed, epoch, index of the clip) alone."""

    seed: int
    epoch: int
    crop_scales: tuple[float, ...]


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled: as in testing, or at random."""

    num_frames: int
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None


def load_clip(uri: str, index: int, sampling: Sampling, region: Region | None = None) -> np.ndarray:
    """Return a clip's frames [T, H, W, 3] (uint8), sampled and cropped to the network's size, decoded in a separate process.

    `index` is the clip's index in its list. Raises `DecodeError`, and `InvalidRegionError` for a region outside of its
    frames.
    """
    return sandboxed(uri, CLIP_LIMITS, decode_clip, uri, index, sampling, region)


def decode_clip(uri: str, index: int, sampling: Sampling, region: Region | None = None) -> np.ndarray:
    """Do what `load_clip` does, in this process."""
    augmentation = sampling.augmentation
    rng = None if augmentation is None else np.random.default_rng((augmentation.seed, augmentation.epoch, index))
    framing = Framing.of(sampling.preprocessing, region)
    try:
        data = storage.read_bytes(uri)  # a clip is a few hundred kilobytes: one request
        indices = segment_indices(probe(data).num_frames, sampling.num_frames, rng)
        frames_THWC = decode_frames(data, indices.tolist(), transform=framing.square if rng is None else framing.whole)
    except FileNotFoundError:
        raise DecodeError(uri, "no such file, though the list names it") from None
    except DecodeError as error:
        raise DecodeError(uri, error.reason) from error
    if augmentation is None or rng is None:
        return frames_THWC
    return multi_scale_crop(frames_THWC, sampling.preprocessing.crop, augmentation.crop_scales, rng)
