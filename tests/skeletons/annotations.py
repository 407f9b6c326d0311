"""Annotations as published pickles hold them."""

from typing import Any

import numpy as np


def annotation(frame_dir: str, *, num_people: int = 1, num_frames: int = 5, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    keypoint = rng.uniform(100, 900, (num_people, num_frames, 28, 2)).astype(np.float32)
    keypoint[:, 1, 3] = np.nan
    keypoint[:, 2, 4] = 0
    return {
        "frame_dir": frame_dir,
        "total_frames": num_frames,
        "label": 5,
        "img_shape": (1080, 1296),
        "original_shape": (1080, 1296),
        "keypoint": keypoint,
        "keypoint_score": rng.random((num_people, num_frames, 28)).astype(np.float16),
    }
