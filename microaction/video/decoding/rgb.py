"""Decoded frames as RGB arrays."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from microaction.video.decoding.container import clockwise_rotation


class RgbConverter:
    """Converts decoded frames to RGB [H, W, 3], rotated by their display matrix.

    Use one converter for each pass over a video: the conversion is set up once, and runs on the decoder's thread. FFmpeg's
    default, a thread per core for every frame, costs a hundred times the conversion itself when all cores are decoding.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame as uint8 RGB [H, W, 3]."""
        image: np.ndarray = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = clockwise_rotation(frame) // 90
        return np.ascontiguousarray(np.rot90(image, k=-turns)) if turns else image
