"""The square around the people of a clip, in which a network sees frames and keypoints.

Shapes: M people, T sampled frames, K keypoints, H height, W width.
"""

import numpy as np

from microaction.skeletons.preparation import Box, crop_frames, crop_keypoints, people_box, scaled_keypoints
from microaction.skeletons.skeleton import Skeleton


class PeopleFraming:
    """Cuts frames and keypoints to the square around all people in all sampled frames, resized to `side`×`side`.

    `skeleton` holds the sampled frames alone. The size of the video's frames is that of the first one that `square` sees.
    """

    def __init__(self, skeleton: Skeleton, side: int) -> None:
        self.skeleton, self.side = skeleton, side
        self._box: Box | None = None
        self._keypoints_MTK2 = skeleton.keypoints_MNK2

    def square(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return the square of a frame."""
        if self._box is None:
            height, width = frame_HWC.shape[:2]
            annotated = (self.skeleton.width, self.skeleton.height)
            self._keypoints_MTK2 = scaled_keypoints(self.skeleton.keypoints_MNK2, annotated, (width, height))
            self._box = people_box(self._keypoints_MTK2, width, height)
        square: np.ndarray = crop_frames(frame_HWC[None], self._box, self.side)[0]
        return square

    def keypoints(self) -> np.ndarray:
        """Return the keypoints [M, T, K, 3] (x and y in pixels of the square, score; float32), once `square` has seen a frame."""
        assert self._box is not None, "the size of frames is known"
        keypoints_MTK2 = crop_keypoints(self._keypoints_MTK2, self._box, self.side)
        return np.concatenate([keypoints_MTK2, self.skeleton.scores_MNK[..., None]], axis=3)
