"""From decoded frames to the square that the network sees: resize, crop, flip. uint8 in, uint8 out.

Shapes: T frames, H height, W width, C = 3 (RGB). The same code serves training, evaluation and labeling.
Source: the reference's pipeline (mmaction2 0.24); its resize is OpenCV's bilinear, without anti-aliasing.
"""

from collections.abc import Sequence

import cv2
import numpy as np

MAX_SCALE_GAP = 1  # the scales of width and height are at most this many steps apart
FLIP_PROBABILITY = 0.5


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


def multi_scale_crop(
    frames_THWC: np.ndarray, size: int, scales: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Apply one random crop to all frames of a clip, resize it to `size`×`size`, and flip it horizontally half of the time.

    Each side of the crop is the short side times one of `scales`, the two at most one step apart; the crop lies at one of 13
    offsets. The reference's scales are 1, 0.875, 0.75 and 0.66.
    """
    H, W = frames_THWC.shape[1:3]
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
    flip = rng.random() < FLIP_PROBABILITY
    crops = frames_THWC[:, top : top + height, left : left + width]
    if flip:
        crops = crops[:, :, ::-1]
    return np.stack([resize(np.ascontiguousarray(frame), size, size) for frame in crops])


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
