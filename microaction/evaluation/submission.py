"""The challenge's submission file: the five most likely actions of every test clip, and their body parts.

Source: the MA-52 track of the Micro-Action Analysis Grand Challenge.
"""

import csv
import io
import zipfile
from collections.abc import Sequence

import numpy as np

from microaction import storage
from microaction.evaluation.metrics import TOP_K
from microaction.taxonomy import BODY_PART_OF

PREDICTION_FILE = "prediction.csv"
VIDEO_SUFFIX = ".mp4"
FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # so that the same predictions make the same file


def write_submission(uri: str, names: Sequence[str], scores_NK: np.ndarray, body_NP: np.ndarray | None = None) -> None:
    """Write the zip, with a row per clip in the order of `names`; see `prediction_csv`.

    Raises `ValueError` if a clip has no scores, two clips have the same file name, or `uri` does not end in .zip.
    """
    write_prediction_zip(uri, prediction_csv(names, scores_NK, body_NP))


def write_prediction_zip(uri: str, csv_text: str) -> None:
    """Write a zip that holds the text as prediction.csv, and no folder; equal texts make equal files.

    Raises `ValueError` if `uri` does not end in .zip.
    """
    if not uri.endswith(".zip"):
        raise ValueError(f"the submission {uri} must be a file whose name ends in .zip")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo(PREDICTION_FILE, FIXED_DATE)
        archive.writestr(entry, csv_text, zipfile.ZIP_DEFLATED)
    storage.write_bytes(uri, file.getvalue())


def prediction_csv(names: Sequence[str], scores_NK: np.ndarray, body_NP: np.ndarray | None = None) -> str:
    """Return a CSV: the header vid, action_pred_1…5, body_pred_1…5, and rows of action and body-part ids, most likely first.

    Body parts are those of the actions, or the most likely of `body_NP`, the answers of a network's own classifiers of them.
    Raises as `write_submission`.
    """
    if np.isnan(scores_NK).any():
        raise ValueError("a clip has no scores: every clip of the list must be classified")
    videos = [video_id(name) + VIDEO_SUFFIX for name in names]
    if len(set(videos)) < len(videos):
        raise ValueError("two clips of the list have the same file name, which identifies clips in a submission")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = range(1, TOP_K + 1)
    writer.writerow(["vid", *(f"action_pred_{rank}" for rank in ranks), *(f"body_pred_{rank}" for rank in ranks)])
    for row, video in enumerate(videos):
        actions = np.argsort(-scores_NK[row], kind="stable")[:TOP_K].tolist()
        body = [BODY_PART_OF[action] for action in actions]
        if body_NP is not None:
            body = np.argsort(-body_NP[row], kind="stable")[:TOP_K].tolist()
        writer.writerow([video, *actions, *body])
    return text.getvalue()


def video_id(name: str) -> str:
    """Return what the challenge calls a video: its file's name without folder and suffix."""
    return name.rsplit("/", 1)[-1].removesuffix(VIDEO_SUFFIX)
