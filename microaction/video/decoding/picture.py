"""From stored to displayed pixels: the display matrix and the sample aspect ratio.

Sources: ISO/IEC 14496-12 (8.3.2, the matrix of a track header), ITU-T H.264 (E.2.1, sample aspect ratio).
"""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self, cast

import av
import numpy as np
from av.sidedata.sidedata import Type

from microaction.video.decoding.limits import MAX_PIXELS
from microaction.video.transforms import resize

MAX_SAMPLE_ASPECT = 8  # a larger ratio is a damaged header, not a camera


class Orientation(NamedTuple):
    """How a frame is turned for display: first clockwise by `rotation` degrees (0, 90, 180 or 270), then mirrored.

    `is_mirrored`: left and right are swapped.
    """

    rotation: int = 0
    is_mirrored: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        """Return the orientation that a frame's display matrix gives it, to the nearest quarter turn."""
        matrix = frame.side_data.get(Type.DISPLAYMATRIX.name)
        return cls() if matrix is None else cls.of_matrix(bytes(cast(bytes, matrix)))

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Self:
        """Return the orientation of FFmpeg's display matrix: x' = a·x + c·y, y' = b·x + d·y, y downward."""
        a, b, _, c, d = struct.unpack_from("=5i", matrix)
        is_mirrored = a * d - b * c < 0
        if is_mirrored:
            a = -a
        return cls(round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360, is_mirrored)

    def apply(self, image_HWC: np.ndarray) -> np.ndarray:
        """Return the image as displayed."""
        if self.rotation:
            image_HWC = np.rot90(image_HWC, k=-self.rotation // 90)
        if self.is_mirrored:
            image_HWC = image_HWC[:, ::-1]
        return np.ascontiguousarray(image_HWC)


@dataclass(frozen=True)
class Picture:
    """How the frames of a stream are displayed: `sample_aspect` is the width of a stored pixel divided by its height."""

    sample_aspect: Fraction = Fraction(1)

    @classmethod
    def of(cls, stream: av.VideoStream) -> Self:
        """Return how a stream's frames are displayed; the container's ratio precedes the codec's, as in players."""
        ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        return cls(ratio if Fraction(1, MAX_SAMPLE_ASPECT) <= ratio <= MAX_SAMPLE_ASPECT else Fraction(1))

    def displayed_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of stored frames with square pixels; one side is stretched, none is shrunk."""
        if self.sample_aspect >= 1:
            size = round(width * self.sample_aspect), height
        else:
            size = width, round(height / self.sample_aspect)
        return size if size[0] * size[1] <= MAX_PIXELS else (width, height)

    def displayed(self, image_HWC: np.ndarray, orientation: Orientation) -> np.ndarray:
        """Return a stored frame as displayed."""
        height, width = image_HWC.shape[:2]
        displayed_width, displayed_height = self.displayed_size(width, height)
        return orientation.apply(resize(image_HWC, displayed_height, displayed_width))
