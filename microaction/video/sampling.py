"""Which frames of a clip the network sees: one from each of T equal segments.

Source: the reference's sampling, Guo et al. 2024 and the authors' published code.
"""

import numpy as np


def segment_indices(num_frames: int, num_segments: int = 8, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return ascending frame indices [T] (int64), one from each segment of a clip of `num_frames` frames.

    With `rng`, a frame is drawn from each segment, as in training. Segments then have ⌊n/T⌋ frames, so the last n mod T
    frames are never drawn, and a clip with fewer frames than segments repeats some. Without it, the middle frame is
    taken, as in testing: int(i·n/T + n/(2T)).
    """
    if num_frames < 1 or num_segments < 1:
        raise ValueError(f"num_frames ({num_frames}) and num_segments ({num_segments}) must be at least 1")
    segments = np.arange(num_segments)
    if rng is None:
        # (2i+1)·n / 2T in integers: floats could round to the wrong frame.
        return (2 * segments + 1) * num_frames // (2 * num_segments)
    frames_per_segment = num_frames // num_segments
    if frames_per_segment > 0:
        return segments * frames_per_segment + rng.integers(frames_per_segment, size=num_segments)
    return np.round(segments * num_frames / num_segments).astype(np.int64) % num_frames
