"""From a clip's frames and skeleton to what PCAN sees: the square around the people.

Source: the published pipeline of PCAN (Li et al. 2025), whose frames and keypoints this equals bit for bit.

Shapes: M people, T sampled frames, K keypoints, H height, W width.
"""

from typing import NamedTuple

import cv2
import numpy as np

BOX_PADDING = 1.25
MIN_EXTENT = 10  # pixels, below which keypoints do not tell where the person is


# Left and right shoulder, elbow, wrist, hip, knee, ankle, eye and ear. The reference exchanges no points of the hands.
FLIP_PAIRS = ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17))


class Box(NamedTuple):
    """A rectangle in whole pixels of the frame, `right` and `bottom` exclusive; it may extend beyond the frame."""

    left: int
    top: int
    right: int
    bottom: int


def people_box(keypoints_MTK2: np.ndarray, width: int, height: int) -> Box:
    """Return the square around all keypoints that were found, an eighth larger on each side; the whole frame without them."""
    x, y = keypoints_MTK2[..., 0], keypoints_MTK2[..., 1]
    x, y = x[x != 0], y[y != 0]
    if not len(x) or not len(y) or np.ptp(x) < MIN_EXTENT or np.ptp(y) < MIN_EXTENT:
        return Box(0, 0, width, height)
    centers, halves = [], []
    for values in (x, y):
        centers.append((values.max() + values.min()) / 2)
        halves.append((values.max() - values.min()) / 2 * BOX_PADDING)
    half = max(halves)
    left, right, top, bottom = (int(center + side * half) for center in centers for side in (-1, 1))
    return Box(left, top, right, bottom)


def crop_frames(frames_THWC: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Return a box of each frame, black beyond the frame, resized to `size`×`size` (bilinear, uint8)."""
    H, W = frames_THWC.shape[1:3]
    inside = frames_THWC[:, max(box.top, 0) : min(box.bottom, H), max(box.left, 0) : min(box.right, W)]
    padding = ((0, 0), (max(-box.top, 0), max(box.bottom - H, 0)), (max(-box.left, 0), max(box.right - W, 0)), (0, 0))
    padded = np.pad(inside, padding)
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in padded])


def crop_keypoints(keypoints: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Return keypoints […, 2] in pixels of the box resized to `size`×`size`; those that were not found stay 0, 0."""
    cropped = keypoints.astype(np.float32, copy=True)
    for axis, (start, extent) in enumerate(((box.left, box.right - box.left), (box.top, box.bottom - box.top))):
        values = cropped[..., axis]
        values[values != 0] -= start
        values *= np.float32(size / extent)
    return cropped


def flipped(keypoints: np.ndarray, scores: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints […, K, 2] and scores […, K] of the frames' mirror images: left and right are exchanged."""
    order = np.arange(keypoints.shape[-2])
    for left, right in FLIP_PAIRS:
        order[[left, right]] = order[[right, left]]
    mirrored = keypoints[..., order, :].copy()
    x = mirrored[..., 0]
    x[x != 0] = width - x[x != 0]
    return mirrored, scores[..., order]


def scaled_keypoints(keypoints: np.ndarray, from_size: tuple[int, int], to_size: tuple[int, int]) -> np.ndarray:
    """Return keypoints […, 2] of frames of one (width, height) in pixels of frames of another."""
    factors = np.array([to / of for of, to in zip(from_size, to_size, strict=True)])
    scaled: np.ndarray = (keypoints * factors).astype(np.float32)
    return scaled
