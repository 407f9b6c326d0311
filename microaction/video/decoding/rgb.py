"""Decoded frames as RGB arrays."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from microaction.video.decoding.picture import Orientation, Picture


class RgbConverter:
    """Converts decoded frames to RGB [H, W, 3] as displayed: square pixels, turned by their display matrix.

    Untagged frames are converted as BT.601, whatever their size, as FFmpeg does. Use one converter for each pass over a
    video: the conversion is set up once, and runs on the decoder's thread. FFmpeg's default, a thread per core for every
    frame, costs a hundred times the conversion itself when all cores are decoding.
    """

    def __init__(self, picture: Picture) -> None:
        self._reformatter = VideoReformatter()
        self._picture = picture
        # By the angle that PyAV knows. Asking a frame for its side data makes a reference cycle, which holds its pixels until
        # the garbage collector runs: done once for each angle.
        self._orientations: dict[int, Orientation] = {}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame as uint8 RGB [H, W, 3]."""
        image: np.ndarray = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = Orientation.of(frame)
        return self._picture.displayed(image, self._orientations[frame.rotation])
