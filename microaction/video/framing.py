"""From a decoded frame to what the network sees of it; the same in training, evaluation and labeling.

Shapes: H height, W width, C = 3 (RGB, uint8).
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np

from microaction.errors import InvalidRegionError
from microaction.preprocessing import Fit, Preprocessing
from microaction.video.transforms import center_crop, resize, resize_short_side


class Region(NamedTuple):
    """A rectangle of a displayed frame (the display matrix applied), in pixels."""

    left: int
    top: int
    width: int
    height: int


class Crop(NamedTuple):
    """A rectangle of a displayed frame, in pixels, that may leave the frame, and of which only the columns from `first_x` to
    `end_x` (exclusive) show what it is made for. Beyond both, the nearest pixels are repeated."""

    left: int
    top: int
    width: int
    height: int
    first_x: int
    end_x: int

    @classmethod
    def of(cls, part: "Region | Crop | None", width: int, height: int) -> "Crop":
        """Return a part of frames of this size as a crop; None: the whole frames."""
        if isinstance(part, Crop):
            return part
        left, top, part_width, part_height = part or Region(0, 0, width, height)
        return cls(left, top, part_width, part_height, left, left + part_width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom (exclusive) of the rectangle."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def moved(self, shift_x: float, shift_y: float, scale: float) -> "Crop":
        """Return the crop shifted by fractions of its sides, and scaled around its center.

        What the columns show does not change, and beyond them the nearest pixels are repeated.
        """
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        left = self.left + round(shift_x * self.width + (self.width - width) / 2)
        top = self.top + round(shift_y * self.height + (self.height - height) / 2)
        return self._replace(left=left, top=top, width=width, height=height)

    def cut(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return the rectangle. Raises `InvalidRegionError` if it is empty or shows nothing of the frame."""
        H, W = frame_HWC.shape[:2]
        left, right = max(self.left, self.first_x, 0), min(self.left + self.width, self.end_x, W)
        top, bottom = max(self.top, 0), min(self.top + self.height, H)
        if left >= right or top >= bottom:
            raise InvalidRegionError(
                f"the crop of {self.width}×{self.height} pixels at ({self.left}, {self.top}), of which the columns "
                f"{self.first_x} to {self.end_x} count, shows nothing of the frame of {W}×{H}"
            )
        beyond = (top - self.top, self.top + self.height - bottom, left - self.left, self.left + self.width - right)
        image = cv2.copyMakeBorder(frame_HWC[top:bottom, left:right], *beyond, cv2.BORDER_REPLICATE)
        return np.asarray(image)


@dataclass(frozen=True)
class Framing:
    """Which part of a frame is kept, and at which size.

    With fit "crop", as in the reference, the short side is resized to `short_side` pixels and the center is cropped.
    With "pad", the whole frame is kept and filled up to a square with `padding_color` (RGB). Both act on `region` alone
    if it is given: a region, or a person's crop. Squares around people (`fit` "people") are cut by
    `microaction.skeletons.framing`.
    """

    short_side: int = 256
    crop: int = 224
    fit: Fit = "crop"
    region: Region | Crop | None = None
    padding_color: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, preprocessing: Preprocessing, region: Region | Crop | None = None) -> Self:
        """Return the framing of a checkpoint's preprocessing, for a region of the frames."""
        return cls(preprocessing.short_side, preprocessing.crop, preprocessing.fit, region, preprocessing.padding_color)

    def square(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return the `crop`×`crop` pixels that the network sees in testing and labeling. Raises `InvalidRegionError`."""
        frame = self.cut(frame_HWC)
        if self.fit == "pad":
            return self._padded(frame, self.crop)
        return np.ascontiguousarray(center_crop(resize_short_side(frame, self.short_side), self.crop))

    def whole(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return the image that training takes random crops from; its short side is `short_side`.

        Raises `InvalidRegionError`.
        """
        frame = self.cut(frame_HWC)
        return self._padded(frame, self.short_side) if self.fit == "pad" else resize_short_side(frame, self.short_side)

    def cut(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return the region of a frame, at its own size. Raises `InvalidRegionError`."""
        if self.region is None:
            return frame_HWC
        if isinstance(self.region, Crop):
            return self.region.cut(frame_HWC)
        (left, top, width, height), (H, W) = self.region, frame_HWC.shape[:2]
        if min(left, top) < 0 or min(width, height) < 1 or left + width > W or top + height > H:
            raise InvalidRegionError(
                f"region of {width}×{height} pixels at ({left}, {top}) does not lie inside the frame of {W}×{H}; correct "
                "region_left, region_top, region_width and region_height"
            )
        return np.ascontiguousarray(frame_HWC[top : top + height, left : left + width])

    def _padded(self, frame_HWC: np.ndarray, size: int) -> np.ndarray:
        """Return the whole frame in the center of a `size`×`size` square."""
        H, W = frame_HWC.shape[:2]
        scale = size / max(H, W)
        height, width = max(1, round(H * scale)), max(1, round(W * scale))
        top, left = (size - height) // 2, (size - width) // 2
        bottom, right = size - height - top, size - width - left
        image = resize(frame_HWC, height, width)
        return np.asarray(
            cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=self.padding_color)
        )
