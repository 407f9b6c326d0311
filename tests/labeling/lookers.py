"""Look stages of the tests; workers import them by name."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microaction.labeling.looks import Looker, look_row
from microaction.people import Detection, DetectorError, take_looks
from microaction.video import SeekPoint
from microaction.video.windows import Span

LOOKING_S = 0.2


class ListedPeople:
    """A detector that finds the boxes [left, top, right, bottom] in the file beside the video, in every frame alike."""

    digest = "listed"

    def __init__(self, video: str) -> None:
        self.boxes = json.loads(boxes_file(video).read_text())

    def detect(self, frame_HWC: np.ndarray, turn: int = 0) -> list[Detection]:
        return [Detection(tuple(box), _keypoints(*box), 0.9) for box in self.boxes]


def _keypoints(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return visible keypoints of somebody who stands in a box."""
    width, height = right - left, bottom - top
    xy_K2 = np.full((17, 2), [left + width / 2, top + 0.1 * height])
    for joints, y in (
        ((5, 6), 0.2),
        ((7, 8), 0.35),
        ((9, 10), 0.5),
        ((11, 12), 0.5),
        ((13, 14), 0.75),
        ((15, 16), 0.97),
    ):
        xy_K2[joints[0]] = left + 0.7 * width, top + y * height
        xy_K2[joints[1]] = left + 0.3 * width, top + y * height
    return np.concatenate([xy_K2, np.full((17, 1), 0.8)], axis=1).astype(np.float32)


def boxes_file(video: str) -> Path:
    """Return the file with the boxes of the people in a video."""
    return Path(video).with_suffix(".boxes.json")


def listed_looks(video: str, span: Span, seek_points: list[SeekPoint]) -> list[dict[str, Any]]:
    """Look at a part of a video with `ListedPeople`."""
    return [look_row(look) for look in take_looks(video, span, ListedPeople(video), seek_points)]


class ListedLooker(Looker):
    """Finds those whom the file beside the video lists."""

    look = staticmethod(listed_looks)


class LoggingLooker(Looker):
    """Takes some time, and adds every part that it has looked at to the archive's `look_log`."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        looked = super().__call__(row)
        time.sleep(LOOKING_S)
        with look_log(Path(row["video"]).parent).open("ab", buffering=0) as log:
            log.write(row["chunk_id"].encode() + b"\n")
        return looked


def look_log(archive: Path) -> Path:
    """Return the file with a part's ID for every time that it was looked at."""
    return archive.with_suffix(".looked")


class LookerWithoutDetector(Looker):
    """The look stage on a node that lacks the detector's weights."""

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        raise DetectorError("not here")
