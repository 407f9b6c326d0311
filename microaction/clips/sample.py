"""One labeled clip: which of its frames, and which part of them, a network sees; for some, of its skeleton too.

Shapes: M people, T frames, K keypoints, H height, W width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from microaction.clips.settings import PeopleRule
from microaction.preprocessing import PersonScale, Preprocessing
from microaction.skeletons import Skeleton
from microaction.skeletons.framing import PeopleFraming
from microaction.skeletons.preparation import Box, crop_keypoints, flipped
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.video import FrameSampling, Framing, Region
from microaction.video.clip import ClipFrames, open_clip
from microaction.video.framing import Crop as PersonCrop
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.transforms import (
    Crop,
    ResizedCrop,
    draw_multi_scale_crop,
    draw_resized_crop,
    erase,
    jitter_colors,
)
from microaction.video.windows import Span

if TYPE_CHECKING:
    from microaction.models.settings import ModelConfig

CLIP_LIMITS = Limits(time_s=120)


@dataclass(frozen=True)
class Augmentation:
    """Random sampling, as in training: everything depends on (seed, epoch, index of the clip) alone.

    Without `resized`, crops have one of the `crop_scales`; with it, any area and shape. Before, the part of the frames that
    counts is shifted by at most `part_shift` of its sides, and scaled by at most 1 + `part_scale`, up or down.
    """

    seed: int
    epoch: int
    crop_scales: tuple[float, ...]
    resized: ResizedCrop | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    part_shift: float = 0.0
    part_scale: float = 0.0

    @property
    def moves_part(self) -> bool:
        """Whether the part of the frames that counts is shifted or scaled."""
        return bool(self.part_shift or self.part_scale)

    def part(
        self, part: Region | PersonCrop | None, width: int, height: int, rng: np.random.Generator
    ) -> Region | PersonCrop | None:
        """Return the part of frames of this size that is seen instead of `part`."""
        if not self.moves_part:
            return part
        shift_x, shift_y = rng.uniform(-self.part_shift, self.part_shift, 2)
        scale = (1 + self.part_scale) ** rng.uniform(-1, 1)
        return PersonCrop.of(part, width, height).moved(shift_x, shift_y, scale)

    def crop(self, height: int, width: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of frames."""
        if self.resized is None:
            return draw_multi_scale_crop(height, width, self.crop_scales, rng)
        return draw_resized_crop(height, width, self.resized, rng)

    def changed(self, frames_THWC: np.ndarray, padding: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
        """Return cropped frames with other colors, and a part erased with the color of padding."""
        if self.color_jitter:
            frames_THWC = jitter_colors(frames_THWC, self.color_jitter, rng)
        if self.erasing:
            frames_THWC = erase(frames_THWC, self.erasing, padding, rng)
        return frames_THWC


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled: as in testing, or at random.

    `num_frames` of the video, and `num_pose_frames` of the skeleton, of which the network sees the keypoints; either may be 0.
    With `people` auto, clips of several people are cut to one of them, in the scale of `preprocessing.person`.
    """

    num_frames: int
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    num_pose_frames: int = 0
    people: PeopleRule = "off"

    @classmethod
    def of(
        cls,
        model: "ModelConfig",
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        people: PeopleRule = "off",
    ) -> Self:
        """Return how clips are sampled for a network."""
        return cls(model.num_rgb_frames, preprocessing, augmentation, model.num_pose_frames, people)

    @property
    def needs_skeletons(self) -> bool:
        """Whether clips must come with skeletons."""
        return self.num_pose_frames > 0 or self.preprocessing.fit == "people"

    @property
    def num_views(self) -> int:
        """How many times a clip is sampled: once in training."""
        return self.preprocessing.views if self.augmentation is None else 1

    @property
    def num_sampled(self) -> int:
        """Frames of all views."""
        return self.num_frames * self.num_views

    @property
    def num_pose_sampled(self) -> int:
        """Frames of the skeleton of all views."""
        return self.num_pose_frames * self.num_views

    @property
    def side(self) -> int:
        """Side of the frames in pixels."""
        return self.preprocessing.side if self.augmentation is None else self.preprocessing.crop

    def indices(self, num_sampled: int, num_frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Return which frames of a clip of `num_frames` are taken; without `rng` as in testing."""
        return FrameSampling.of(num_sampled, self.preprocessing).indices(num_frames, rng)


class Sample(NamedTuple):
    """What a network sees of a clip: frames [T, H, W, 3] (uint8) of its size, and the keypoints [M, T, K, 3] (float32) of the
    frames of the skeleton: x and y in pixels of such frames, and the score. T may be 0."""

    frames_THWC: np.ndarray
    keypoints_MTK3: np.ndarray


def load_clip(
    uri: str,
    index: int,
    sampling: Sampling,
    region: Region | None = None,
    skeleton: Skeleton | None = None,
    person: int | None = None,
    span: Span | None = None,
) -> Sample:
    """Return what a network sees of a clip, decoded in a separate process.

    `index` is the clip's index in its list; `region`, `skeleton`, `person` and `span` are those of a `Clip`. Raises
    `DecodeError`, also for a span that begins beyond the end of its file, and `InvalidRegionError` for a region outside of its
    frames, or a person whom they do not show.
    """
    return Sample(*sandboxed(uri, CLIP_LIMITS, _decoded_arrays, uri, index, sampling, region, skeleton, person, span))


def decode_clip(
    uri: str,
    index: int,
    sampling: Sampling,
    region: Region | None = None,
    skeleton: Skeleton | None = None,
    person: int | None = None,
    span: Span | None = None,
) -> Sample:
    """Do what `load_clip` does, in this process."""
    augmentation = sampling.augmentation
    rng = None if augmentation is None else np.random.default_rng((augmentation.seed, augmentation.epoch, index))
    with open_clip(uri, span) as frames:
        if skeleton is not None:
            sample = _around_people(frames, sampling, skeleton, rng)
        else:
            sample = _framed(frames, sampling, _part(frames, sampling, region, person), rng)
    return sample if augmentation is None or rng is None else _augmented(sample, sampling, augmentation, rng)


def _decoded_arrays(
    uri: str,
    index: int,
    sampling: Sampling,
    region: Region | None,
    skeleton: Skeleton | None,
    person: int | None,
    span: Span | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays of a `Sample`: a process of its own returns no classes but those of errors."""
    frames_THWC, keypoints_MTK3 = decode_clip(uri, index, sampling, region, skeleton, person, span)
    return frames_THWC, keypoints_MTK3


def _part(
    frames: ClipFrames, sampling: Sampling, region: Region | None, person: int | None
) -> Region | PersonCrop | None:
    """Return the part of the clip's frames that counts."""
    if sampling.people == "off":
        return region
    from microaction.clips.people import part_of_clip  # slow, and rarely needed

    return part_of_clip(frames, region, person, sampling.preprocessing.person or PersonScale())


def _framed(
    frames: ClipFrames, sampling: Sampling, part: Region | PersonCrop | None, rng: np.random.Generator | None
) -> Sample:
    """Return frames of the size that crops are taken from, or of the network's without `rng`."""
    augmentation = sampling.augmentation
    if augmentation is not None and rng is not None and augmentation.moves_part:
        part = augmentation.part(part, *frames.displayed_size(), rng)
    framing = Framing.of(sampling.preprocessing, part)
    indices = sampling.indices(sampling.num_frames, frames.num_frames, rng)
    frames_THWC = frames.decode(indices.tolist(), framing.square if rng is None else framing.whole)
    return Sample(frames_THWC, np.empty((0, 0, NUM_KEYPOINTS, 3), np.float32))


def _around_people(
    frames: ClipFrames, sampling: Sampling, skeleton: Skeleton, rng: np.random.Generator | None
) -> Sample:
    """Return frames and keypoints of the square around the people in all sampled frames of the skeleton."""
    side = sampling.preprocessing.short_side if rng is not None else sampling.preprocessing.side
    num_frames = min(frames.num_frames, skeleton.num_frames)
    # Without pose frames every frame's keypoints count for the square.
    pose = np.arange(num_frames)
    indices = np.empty(0, np.int64)
    if sampling.num_frames:
        indices = sampling.indices(sampling.num_frames, num_frames, rng)
    if sampling.num_pose_frames:
        pose = sampling.indices(sampling.num_pose_frames, num_frames, rng)
    framing = PeopleFraming(skeleton.at(pose), side)
    # The first frame tells the size that keypoints are scaled to, also where the network sees no frames.
    frames_THWC = frames.decode(indices.tolist() or [0], framing.square)[: len(indices)]
    keypoints_MTK3 = framing.keypoints()
    return Sample(frames_THWC, keypoints_MTK3[:, : sampling.num_pose_sampled])


def _augmented(sample: Sample, sampling: Sampling, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Return a random crop, changed at random."""
    size, short_side = sampling.preprocessing.crop, sampling.preprocessing.short_side
    height, width = sample.frames_THWC.shape[1:3] if len(sample.frames_THWC) else (short_side, short_side)
    crop = augmentation.crop(height, width, rng)
    frames_THWC = np.empty((0, size, size, 3), np.uint8)
    if len(sample.frames_THWC):
        frames_THWC = crop.of(sample.frames_THWC, size)
        frames_THWC = augmentation.changed(frames_THWC, sampling.preprocessing.padding_color, rng)
    return Sample(frames_THWC, cropped_keypoints(sample.keypoints_MTK3, crop, size))


def cropped_keypoints(keypoints_MTK3: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Return keypoints in pixels of a crop that is resized to `size`×`size`."""
    box = Box(crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    keypoints_MTK2, scores_MTK = crop_keypoints(keypoints_MTK3[..., :2], box, size), keypoints_MTK3[..., 2]
    if crop.is_flipped:
        keypoints_MTK2, scores_MTK = flipped(keypoints_MTK2, scores_MTK, size)
    return np.concatenate([keypoints_MTK2, scores_MTK[..., None]], axis=3)
