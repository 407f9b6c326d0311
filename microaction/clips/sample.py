"""One labeled clip: which of its frames, and which part of them, a network sees."""

from dataclasses import dataclass

import numpy as np

from microaction import storage
from microaction.preprocessing import Preprocessing
from microaction.video import DecodeError, FrameSampling, Framing, Region, decode_frames, probe
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.transforms import ResizedCrop, erase, jitter_colors, multi_scale_crop, resized_crop

CLIP_LIMITS = Limits(time_s=120)


@dataclass(frozen=True)
class Augmentation:
    """Random sampling, as in training: everything depends on (seed, epoch, index of the clip) alone.

    Without `resized`, crops have one of the `crop_scales`; with it, any area and shape.
    """

    seed: int
    epoch: int
    crop_scales: tuple[float, ...]
    resized: ResizedCrop | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled: as in testing, or at random."""

    num_frames: int
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None

    @property
    def frames(self) -> FrameSampling:
        """The rule by which frames are taken."""
        return FrameSampling.of(self.num_frames, self.preprocessing)

    @property
    def num_sampled(self) -> int:
        """Frames of a clip: one view in training, all of them in testing."""
        return self.num_frames if self.augmentation is not None else self.frames.num_sampled


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
        indices = sampling.frames.indices(probe(data).num_frames, rng)
        frames_THWC = decode_frames(data, indices.tolist(), transform=framing.square if rng is None else framing.whole)
    except FileNotFoundError:
        raise DecodeError(uri, "no such file, though the list names it") from None
    except DecodeError as error:
        raise DecodeError(uri, error.reason) from error
    if augmentation is None or rng is None:
        return frames_THWC
    size = sampling.preprocessing.crop
    if augmentation.resized is None:
        frames_THWC = multi_scale_crop(frames_THWC, size, augmentation.crop_scales, rng)
    else:
        frames_THWC = resized_crop(frames_THWC, size, augmentation.resized, rng)
    if augmentation.color_jitter:
        frames_THWC = jitter_colors(frames_THWC, augmentation.color_jitter, rng)
    if augmentation.erasing:
        frames_THWC = erase(frames_THWC, augmentation.erasing, sampling.preprocessing.padding_color, rng)
    return frames_THWC
