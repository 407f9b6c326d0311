"""Label stages that fail; actors import them by name."""

import numpy as np

from microaction.labeling.pipeline import LabelerActor


class OutOfMemoryLabeler(LabelerActor):
    """Fails for batches with a chunk of a single window."""

    def _probabilities(
        self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray, keypoints_WMTK3: np.ndarray
    ) -> np.ndarray:
        if any(len(windows) == 1 for windows in windows_of_chunks):
            raise RuntimeError("out of memory")
        return super()._probabilities(frames_of_chunks, windows_of_chunks, keypoints_WMTK3)
