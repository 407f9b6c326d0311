"""From decoded frames to the square that the network sees: resize, crop, flip. uint8 in, uint8 out.

Shapes: T frames, H height, W width, C = 3 (RGB). The same code serves training, evaluation and labeling.
Source: the reference's pipeline (mmaction2 0.24); its resize is OpenCV's bilinear, without anti-aliasing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

MAX_SCALE_GAP = 1  # the scales of width and height are at most this many steps apart
FLIP_PROBABILITY = 0.5
NUM_CANDIDATES = 10
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
ERASING_PROBABILITY, MIN_ERASED, ERASED_ASPECT = 0.25, 0.02, (0.3, 3.3)


def resize_short_side(frame_HWC: np.ndarray, short_side: int) -> np.ndarray:
    """Resize a frame to this short side, aspect ratio kept: 1296×1080 → 307×256. Returns the same object if nothing
    changes.
    """
    H, W = frame_HWC.shape[:2]
    scale = short_side / min(H, W)
    return resize(frame_HWC, int(H * scale + 0.5), int(W * scale + 0.5))


def center_crop(frames_THWC: np.ndarray, size: int) -> np.ndarray:
    """Return the center `size`×`size` pixels of each frame, as a view. Raises `ValueError` if frames are smaller."""
    H, W = frames_THWC.shape[-3:-1]
    if min(H, W) < size:
        raise ValueError(
            f"frames of {W}×{H} pixels are smaller than the crop ({size}); resize them to short_side first"
        )
    top, left = (H - size) // 2, (W - size) // 2
    return frames_THWC[..., top : top + size, left : left + size, :]


class Crop(NamedTuple):
    """A rectangle of a frame in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool

    def of(self, frames_THWC: np.ndarray, size: int) -> np.ndarray:
        """Return this part of each frame, resized to `size`×`size`."""
        crops = frames_THWC[:, self.top : self.top + self.height, self.left : self.left + self.width]
        resized = np.stack([resize(np.ascontiguousarray(frame), size, size) for frame in crops])
        return np.ascontiguousarray(resized[:, :, ::-1]) if self.is_flipped else resized


def draw_multi_scale_crop(H: int, W: int, scales: Sequence[float], rng: np.random.Generator) -> Crop:
    """Return a random crop of frames, mirrored half of the time.

    Each side of the crop is the short side times one of `scales`, the two at most one step apart; the crop lies at one of 13
    offsets. The reference's scales are 1, 0.875, 0.75 and 0.66.
    """
    short_side = min(H, W)
    sides = [int(short_side * scale) for scale in scales]
    pairs = [
        (height, width)
        for i, height in enumerate(sides)
        for j, width in enumerate(sides)
        if abs(i - j) <= MAX_SCALE_GAP
    ]
    height, width = pairs[rng.integers(len(pairs))]
    offsets = crop_offsets(H - height, W - width)
    top, left = offsets[rng.integers(len(offsets))]
    return Crop(top, left, height, width, bool(rng.random() < FLIP_PROBABILITY))


class ResizedCrop(NamedTuple):
    """Random crops of any size: ranges of the area, as fractions of the frame, and of the width as multiples of the height."""

    area: tuple[float, float]
    aspect: tuple[float, float]


def draw_resized_crop(H: int, W: int, ranges: ResizedCrop, rng: np.random.Generator) -> Crop:
    """Return a random crop of frames, mirrored half of the time.

    Of ten candidates the first that fits into the frame is taken, else the center square. The aspect is drawn log-uniformly.
    """
    area = H * W * rng.uniform(*ranges.area, NUM_CANDIDATES)
    low, high = np.log(ranges.aspect)
    aspect = np.exp(rng.uniform(low, high, NUM_CANDIDATES))
    widths, heights = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    place_y, place_x, flip = rng.random(3)
    fitting = np.flatnonzero((widths <= W) & (heights <= H) & (widths > 0) & (heights > 0))
    if len(fitting):
        height, width = int(heights[fitting[0]]), int(widths[fitting[0]])
        top, left = int(place_y * (H - height + 1)), int(place_x * (W - width + 1))
    else:
        height = width = min(H, W)
        top, left = (H - height) // 2, (W - width) // 2
    return Crop(top, left, height, width, bool(flip < FLIP_PROBABILITY))


def jitter_colors(frames_THWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation of all frames of a clip by the same factors from [1 − s, 1 + s]."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    frames = frames_THWC.astype(np.float32) * brightness
    mean = (frames @ LUMA).mean()
    frames = mean + contrast * (frames - mean)
    gray = (frames @ LUMA)[..., None]
    frames = gray + saturation * (frames - gray)
    jittered: np.ndarray = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return jittered


def erase(
    frames_THWC: np.ndarray, max_area: float, color: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Fill one random rectangle of all frames with a color, in a quarter of the clips. Returns a copy where it does."""
    H, W = frames_THWC.shape[1:3]
    chance, place_y, place_x = rng.random(3)
    area = H * W * rng.uniform(min(MIN_ERASED, max_area), max_area)
    low, high = np.log(ERASED_ASPECT)
    aspect = np.exp(rng.uniform(low, high))
    height, width = min(round(np.sqrt(area / aspect)), H), min(round(np.sqrt(area * aspect)), W)
    if chance >= ERASING_PROBABILITY:
        return frames_THWC
    top, left = int(place_y * (H - height + 1)), int(place_x * (W - width + 1))
    erased = frames_THWC.copy()
    erased[:, top : top + height, left : left + width] = color
    return erased


def crop_offsets(free_height: int, free_width: int) -> list[tuple[int, int]]:
    """Return the 13 fixed (top, left) offsets of a crop: corners, center, midpoints of the edges, and quarter points."""
    y, x = free_height // 4, free_width // 4
    return [
        *((0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)),
        *((2 * y, 0), (2 * y, 4 * x), (4 * y, 2 * x), (0, 2 * x)),
        *((y, x), (y, 3 * x), (3 * y, x), (3 * y, 3 * x)),
    ]


def resize(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a frame bilinearly. Returns the same object if nothing changes."""
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    return np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_LINEAR))
