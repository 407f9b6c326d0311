"""Anti-aliased shapes at sub-pixel positions on an RGB image, in figure coordinates.

Points are complex numbers, x to the right and y down, so that a rotation is a product. Lengths are in torso lengths.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from microaction.synthetic.subject import Color

SHIFT_BITS = 4  # OpenCV's fixed-point coordinates: sixteenths of a pixel, so that slow motion is smooth
SUBPIXELS = 1 << SHIFT_BITS
_CAP_HALF = np.exp(1j * np.linspace(math.pi / 2, 3 * math.pi / 2, 6))  # the round end of a limb, as a unit half circle


class Camera(NamedTuple):
    """Where points are in an image: pixel = origin_px + point · px_per_unit."""

    origin_px: complex
    px_per_unit: float


class Canvas:
    """An image [H, W, 3] (uint8) seen by a camera. Methods draw in place."""

    def __init__(self, image_HWC: np.ndarray, camera: Camera) -> None:
        self.image_HWC = image_HWC
        self.origin_px, self.px_per_unit = camera

    def disc(self, center: complex, radius: float, color: Color) -> None:
        """Draw a filled circle."""
        x, y = self._fixed(center)
        size = max(1, round(radius * self.px_per_unit * SUBPIXELS))
        cv2.circle(self.image_HWC, (x, y), size, color, cv2.FILLED, cv2.LINE_AA, SHIFT_BITS)

    def ellipse(self, center: complex, half_axes: complex, direction: complex, color: Color) -> None:
        """Draw a filled ellipse; `half_axes` are along and across `direction`."""
        x, y = self._fixed(center)
        scale = self.px_per_unit * SUBPIXELS
        axes = (max(1, round(half_axes.real * scale)), max(1, round(half_axes.imag * scale)))
        degrees = math.degrees(math.atan2(direction.imag, direction.real))
        cv2.ellipse(self.image_HWC, (x, y), axes, degrees, 0, 360, color, cv2.FILLED, cv2.LINE_AA, SHIFT_BITS)

    def limb(self, start: complex, end: complex, start_radius: float, end_radius: float, color: Color) -> None:
        """Draw a tapered bar with round ends."""
        along = end - start
        length = abs(along)
        unit = along / length if length > 1e-6 else 1.0
        outline = np.concatenate((start + _CAP_HALF * (unit * start_radius), end - _CAP_HALF * (unit * end_radius)))
        cv2.fillConvexPoly(self.image_HWC, self._fixed_array(outline), color, cv2.LINE_AA, SHIFT_BITS)

    def polygon(self, points: Sequence[complex], color: Color) -> None:
        """Draw a filled polygon of any shape."""
        cv2.fillPoly(self.image_HWC, [self._fixed_array(np.array(points))], color, cv2.LINE_AA, SHIFT_BITS)

    def stroke(self, points: Sequence[complex], width: float, color: Color, *, closed: bool = False) -> None:
        """Draw a line of this width, at least one pixel."""
        thickness = max(1, round(width * self.px_per_unit))
        fixed = [self._fixed_array(np.array(points))]
        cv2.polylines(self.image_HWC, fixed, closed, color, thickness, cv2.LINE_AA, SHIFT_BITS)

    def _fixed(self, point: complex) -> tuple[int, int]:
        px = (self.origin_px + point * self.px_per_unit) * SUBPIXELS
        return round(px.real), round(px.imag)

    def _fixed_array(self, points: np.ndarray) -> np.ndarray:
        px = (self.origin_px + points * self.px_per_unit) * SUBPIXELS
        return np.stack((px.real, px.imag), axis=-1).round().astype(np.int32)
