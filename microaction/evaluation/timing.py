"""Detections of one video on the timeline of its file."""

import numpy as np

from microaction.evaluation.detection import TimedAction
from microaction.models.detector import Detections
from microaction.video.windows import MICROSECONDS


def timed_actions(found: Detections, video: str, start_us: int, duration_us: int) -> list[TimedAction]:
    """Return detections, in seconds from the start of a track, on the timeline of its file; they end with the track.

    `start_us`: when the track begins on the file's timeline.
    """
    segments_D2 = found.segments_D2.astype(np.float64).clip(0, duration_us / MICROSECONDS) + start_us / MICROSECONDS
    rows = zip(segments_D2.tolist(), found.score_D.tolist(), found.class_D.tolist(), strict=True)
    return [TimedAction(video, class_id, start_s, end_s, score) for (start_s, end_s), score, class_id in rows]
