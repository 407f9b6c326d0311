"""Heatmaps as the published pipeline of PCAN (Li et al. 2025) draws them: what those drawn on the device are compared with."""

import numpy as np

SIGMA = 0.7  # of a keypoint's heat, in pixels of the heatmap
HEAT_RADIUS = 3  # sigmas
MIN_SCORE = 1e-4


def heatmaps(
    keypoints_MTK2: np.ndarray, scores_MTK: np.ndarray, side: int, scale: float = 0.25, sigma: float = SIGMA
) -> np.ndarray:
    """Return the heat of keypoints [T, K, side, side] (float32): the maximum over people of score · exp(−d² / 2σ²).

    `scale`: pixels of the heatmap for a pixel that keypoints count in. Each keypoint's heat ends at three sigmas.
    """
    M, T, K = scores_MTK.shape
    heat = np.zeros((T, K, side, side), np.float32)
    for person in range(M):
        for frame in range(T):
            for keypoint in range(K):
                score = scores_MTK[person, frame, keypoint]
                if score >= MIN_SCORE:
                    center = keypoints_MTK2[person, frame, keypoint] * np.float32(scale)
                    _add_heat(heat[frame, keypoint], center, score, sigma)
    return heat


def _add_heat(heat_HW: np.ndarray, center: np.ndarray, score: np.float32, sigma: float) -> None:
    side, radius = heat_HW.shape[0], HEAT_RADIUS * sigma
    (left, right), (top, bottom) = (
        (max(int(value - radius), 0), min(int(value + radius) + 1, side)) for value in center.tolist()
    )
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32)
    y = np.arange(top, bottom, dtype=np.float32)[:, None]
    patch = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 2 / sigma**2) * score
    part = heat_HW[top:bottom, left:right]
    np.maximum(part, patch, out=part)
