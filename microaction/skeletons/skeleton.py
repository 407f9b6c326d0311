"""A skeleton: where the keypoints of the people in a clip are.

Shapes: M people, N frames of the clip, K keypoints.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from microaction.skeletons.errors import SkeletonError

NUM_KEYPOINTS = 28
"""OpenPose's 18 points of the COCO order, then five points of the left hand and five of the right."""


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of one clip.

    `keypoints_MNK2` are x and y in pixels of frames of `width`×`height`, float32; 0, 0 is a keypoint that was not found.
    `scores_MNK` are the detector's scores, float32.
    """

    keypoints_MNK2: np.ndarray
    scores_MNK: np.ndarray
    width: int
    height: int

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return int(self.keypoints_MNK2.shape[1])

    def at(self, indices_T: np.ndarray) -> Self:
        """Return the skeleton of some of the frames, in the order of `indices_T`, which may repeat."""
        return replace(self, keypoints_MNK2=self.keypoints_MNK2[:, indices_T], scores_MNK=self.scores_MNK[:, indices_T])

    def to_bytes(self) -> bytes:
        """Return all of it, for `from_bytes`."""
        numbers = np.array([len(self.scores_MNK), self.num_frames, self.width, self.height], np.int32)
        return numbers.tobytes() + self.keypoints_MNK2.tobytes() + self.scores_MNK.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the skeleton that `to_bytes` returned."""
        M, N, width, height = np.frombuffer(data, np.int32, 4).tolist()
        values = np.frombuffer(data, np.float32, offset=16)
        num_coordinates = M * N * NUM_KEYPOINTS * 2
        keypoints_MNK2 = values[:num_coordinates].reshape(M, N, NUM_KEYPOINTS, 2)
        return cls(keypoints_MNK2, values[num_coordinates:].reshape(M, N, NUM_KEYPOINTS), width, height)

    @classmethod
    def checked(cls, keypoints: object, scores: object, width: int, height: int, what: str) -> Self:
        """Return the skeleton of arrays in any layout of numbers. Raises `SkeletonError` about `what` if they do not fit.

        Coordinates that are not numbers (NaN) count as not found.
        """
        keypoints_MNK2 = np.nan_to_num(np.asarray(keypoints, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        scores_MNK = np.nan_to_num(np.asarray(scores, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if keypoints_MNK2.ndim != 4 or keypoints_MNK2.shape[2:] != (NUM_KEYPOINTS, 2):
            raise SkeletonError(
                f"{what}: keypoints of shape {keypoints_MNK2.shape} must be [people, frames, {NUM_KEYPOINTS}, 2]"
            )
        if scores_MNK.shape != keypoints_MNK2.shape[:3]:
            raise SkeletonError(f"{what}: scores of shape {scores_MNK.shape} must be {keypoints_MNK2.shape[:3]}")
        if width < 1 or height < 1:
            raise SkeletonError(f"{what}: frames of {width}×{height} pixels have no keypoints")
        return cls(keypoints_MNK2, scores_MNK, width, height)
