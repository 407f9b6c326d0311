"""Interviews of several people: shots that show each of them somewhere in the frame, or not at all; the truth says who acts when.

Shapes: H height, W width, C = 3 (RGB, uint8).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from microaction.synthetic.interview import GAP_S, interview_frames, planned
from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, check_size, encode_video
from microaction.synthetic.truth import TruthEvent, write_truth

WALL, TABLE = (176, 168, 156), (104, 74, 48)


class Place(NamedTuple):
    """A rectangle of the frame, as fractions of its width and height, in which a person's picture is shown.

    The picture keeps its proportions: it fills the rectangle and is cut at the sides, or with `is_close` below the chest.
    """

    left: float
    top: float
    width: float
    height: float
    is_close: bool = False


@dataclass(frozen=True)
class Shot:
    """What the camera shows from the end of the shot before to `end_s`: where each person is, by index.

    `has_table`: a table hides the lower part of the frame.
    """

    end_s: float
    places: Mapping[int, Place]
    has_table: bool = False


@dataclass(frozen=True)
class SceneTruth:
    """What each person does (`events`, by index), also where the camera does not show it, and the shots."""

    events: tuple[list[TruthEvent], ...]
    shots: tuple[Shot, ...]


def side_by_side(*people: int, height: float = 1.0) -> dict[int, Place]:
    """Return places of people who sit next to each other, in equal parts of the frame, standing on its lower edge."""
    width = 1 / len(people)
    return {person: Place(number * width, 1 - height, width, height) for number, person in enumerate(people)}


def close_up(person: int) -> dict[int, Place]:
    """Return the place of a person who fills the frame, down to the chest."""
    return {person: Place(0, 0, 1, 1, is_close=True)}


def picture_in_picture(large: int, small: int) -> dict[int, Place]:
    """Return the places of one person who fills the frame and one in its upper right corner."""
    return {large: Place(0, 0, 1, 1), small: Place(0.68, 0.04, 0.28, 0.5)}


def make_scene(  # noqa: PLR0913 - all are what a scene is
    path: str | os.PathLike[str],
    *,
    subject_seeds: Sequence[int],
    shots: Sequence[Shot],
    seed: int,
    size: tuple[int, int],
    fps: int = DEFAULT_FPS,
    actions: Sequence[int] | None = None,
    gap_s: tuple[float, float] = GAP_S,
    overlapping: bool = False,
) -> SceneTruth:
    """Render an interview of one person per subject seed; return its truth. A file that exists already is kept.

    `size`: width and height of the video in pixels. `overlapping`: each person performs several actions at once, those of
    `plan_untrimmed`, which has no use for `gap_s`. Raises `ValueError` for shots that do not follow each other, or that
    show a person who is none.
    """
    check_size(size)
    ends_s = [shot.end_s for shot in shots]
    if not ends_s or ends_s != sorted(set(ends_s)) or ends_s[0] <= 0:
        raise ValueError(f"the ends of the shots {ends_s} must ascend, from more than 0 s")
    unknown = {person for shot in shots for person in shot.places} - set(range(len(subject_seeds)))
    if unknown:
        raise ValueError(f"a shot shows the people {sorted(unknown)}, but there are {len(subject_seeds)}")
    events = tuple(
        planned(
            seed=seed * 100 + person,
            duration_s=ends_s[-1],
            fps=fps,
            actions=actions,
            gap_s=gap_s,
            overlapping=overlapping,
        )
        for person in range(len(subject_seeds))
    )
    if not Path(path).exists():
        num_frames = round(ends_s[-1] * fps)
        people = [
            interview_frames(
                events[person],
                subject_seed=subject_seed,
                seed=seed * 100 + person,
                num_frames=num_frames,
                size=DEFAULT_SIZE,
                fps=fps,
                overlapping=overlapping,
            )
            for person, subject_seed in enumerate(subject_seeds)
        ]
        encode_video(path, _composed(people, shots, num_frames, size, fps), size, fps)
    return SceneTruth(events, tuple(shots))


def write_scene_truth(path: str | os.PathLike[str], truth_of: Mapping[str, SceneTruth]) -> None:
    """Write what people do in videos, by file name: a CSV file with the columns video, person (the index, from 0), action_id,
    action, start_s and end_s; rows are by video, person and time."""
    rows = (((name, person), events) for name, truth in truth_of.items() for person, events in enumerate(truth.events))
    write_truth(Path(path), ("video", "person"), rows)


def _composed(
    people: Sequence[Iterator[np.ndarray]], shots: Sequence[Shot], num_frames: int, size: tuple[int, int], fps: int
) -> Iterator[np.ndarray]:
    W, H = size
    upcoming = list(reversed(shots))
    for number in range(num_frames):
        while len(upcoming) > 1 and upcoming[-1].end_s <= number / fps:
            upcoming.pop()
        shot, pictures = upcoming[-1], [next(frames) for frames in people]
        frame_HWC = np.full((H, W, 3), WALL, np.uint8)
        for person, place in shot.places.items():
            left, top = round(place.left * W), round(place.top * H)
            right, bottom = round((place.left + place.width) * W), round((place.top + place.height) * H)
            frame_HWC[top:bottom, left:right] = _fitted(pictures[person], right - left, bottom - top, place)
        if shot.has_table:
            frame_HWC[round(0.62 * H) :] = TABLE
        yield frame_HWC


def _fitted(picture_HWC: np.ndarray, width: int, height: int, place: Place) -> np.ndarray:
    """Return the picture in a rectangle: cut below the chest in a close-up, and at the sides where it is wider."""
    H, W = picture_HWC.shape[:2]
    if place.is_close:
        picture_HWC = picture_HWC[: round(0.55 * H)]
        H = len(picture_HWC)
    scale = height / H if place.is_close or width / height <= W / H else min(width / W, height / H)
    resized = cv2.resize(
        picture_HWC, (max(1, round(W * scale)), max(1, round(H * scale))), interpolation=cv2.INTER_LINEAR
    )
    fitted = np.full((height, width, 3), WALL, np.uint8)
    rows = min(height, resized.shape[0])
    inside, outside = max((resized.shape[1] - width) // 2, 0), max((width - resized.shape[1]) // 2, 0)
    columns = min(width, resized.shape[1])
    fitted[height - rows :, outside : outside + columns] = resized[:rows, inside : inside + columns]
    return fitted
