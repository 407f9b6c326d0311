"""The submission file of the challenge's detection track: every detection in every test video.

Source: the MMA-52 track of the Micro-Action Analysis Grand Challenge (2024 and 2025).
"""

import csv
import io
from collections.abc import Sequence

from microaction.evaluation.detection import TimedAction
from microaction.evaluation.submission import video_id, write_prediction_zip
from microaction.taxonomy import ACTIONS

HEADER = ("", "video_id", "t_start", "t_end", "class", "score")  # the first column counts rows


def write_detection_submission(uri: str, detections: Sequence[TimedAction]) -> None:
    """Write the zip, with a row per detection in the given order; see `detection_csv`.

    Raises `ValueError` as `detection_csv`, and if `uri` does not end in .zip.
    """
    write_prediction_zip(uri, detection_csv(detections))


def detection_csv(detections: Sequence[TimedAction]) -> str:
    """Return a CSV with video (without suffix), start and end in seconds, action and score of every detection.

    Raises `ValueError` for scores outside [0, 1], actions outside of 0..51, times that are not finite, and two videos with the
    same file name.
    """
    name_of: dict[str, str] = {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for row, event in enumerate(detections):
        if not 0 <= event.score <= 1:  # also of NaN
            raise ValueError(f"{event}: the score must be in [0, 1]")
        if not 0 <= event.action_id < len(ACTIONS):
            raise ValueError(f"{event}: the action must be in 0..{len(ACTIONS) - 1}")
        if not abs(event.start_s) + abs(event.end_s) < float("inf"):
            raise ValueError(f"{event}: times must be finite")
        video = video_id(event.video)
        if name_of.setdefault(video, event.video) != event.video:
            raise ValueError(
                f"{name_of[video]} and {event.video} have the same file name, which identifies videos in a submission"
            )
        writer.writerow(
            [row, video, float(event.start_s), float(event.end_s), int(event.action_id), float(event.score)]
        )
    return text.getvalue()
