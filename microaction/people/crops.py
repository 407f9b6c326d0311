"""The crop of a person: one rectangle per tracklet, in the scale and place that people have in training clips.

Zooming in on what is seen, or following the person from frame to frame, costs more accuracy than any other choice: the
rectangle is constant, and where the legs are hidden it keeps the scale of a whole person and leaves the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from microaction.people.detector import ANKLES, HIPS, KNEES, SHOULDERS, Box
from microaction.people.following import Tracklet
from microaction.people.looks import iou
from microaction.preprocessing import PersonScale
from microaction.video.framing import Crop

MIN_VISIBLE_SCORE = 0.15  # score of keypoints that are in the picture: 0.26 and more; of others 0.12 and less
MIN_FRAME_IOU = 0.7  # of a crop and the frame: people fill 0.53 to 0.77 of MA-52's clips
MAX_NEIGHBOR_IOU = 0.5  # overlap of two people's boxes from which no crop shows one of them alone
MIN_COMMON_HEIGHT = 0.2  # of the lower box of two people who are beside each other; others are above or below
MIN_VISIBLE_WIDTH = 0.5  # of a person's box, within the limits between the neighbors


class Body(StrEnum):
    """How much of a person is in the picture."""

    WHOLE = "whole"
    NO_LEGS = "no legs"
    HEAD_AND_SHOULDERS = "head and shoulders"


@dataclass(frozen=True)
class PersonCrop:
    """The rectangle that shows a person. `height_px`: of the whole person, estimated where only a part is visible.

    `is_cut`: whether a neighbor would be in the rectangle, so that it ends in the middle between the two. `is_occluded`:
    whether a neighbor covers the person, or is covered, so that no rectangle shows one of them alone, or only half of one.
    """

    crop: Crop
    body: Body
    height_px: float
    is_cut: bool
    is_occluded: bool


def crop_around(tracklet: Tracklet, neighbors: Sequence[Box], frame_width: int, scale: PersonScale) -> PersonCrop:
    """Return the crop of a tracklet among the boxes of those who are seen with the person.

    `frame_width`: width of the frames in pixels. The rectangle's sides are rounded to even pixels. Neighbors above or below, as
    in a grid of participants, do not limit it.
    """
    left, _, right, _ = tracklet.box
    body, height_px = visible_body(tracklet), person_height(tracklet, scale)
    crop_height = _even(height_px / scale.height)
    crop_width = _even(crop_height * scale.aspect)
    shoulders_y = float(tracklet.keypoints_K3[SHOULDERS, 1].mean())
    crop_left = _even((left + right) / 2 - scale.center_x * crop_width)
    crop_top = _even(shoulders_y - scale.shoulders_y * crop_height)
    first_x, end_x = 0, frame_width
    for other in neighbors:
        if not _is_beside(tracklet.box, other):
            continue
        if other[0] + other[2] > left + right:
            end_x = min(end_x, _middle(tracklet.box, other))
        else:
            first_x = max(first_x, _middle(tracklet.box, other))
    is_cut = first_x > max(crop_left, 0) or end_x < min(crop_left + crop_width, frame_width)
    first_x = min(first_x, max(int(right) - 1, 0))
    end_x = max(end_x, first_x + 1)
    return PersonCrop(
        Crop(crop_left, crop_top, crop_width, crop_height, first_x, end_x),
        body,
        height_px,
        is_cut,
        any(is_hidden_by(tracklet.box, other) for other in neighbors),
    )


def is_hidden_by(box: Box, other: Box) -> bool:
    """Return whether somebody covers a person, or is covered, so far that no crop shows the person alone."""
    if iou(box, other) > MAX_NEIGHBOR_IOU:
        return True
    left, _, right, _ = box
    first_x, end_x = (
        (_middle(box, other), right) if other[0] + other[2] <= left + right else (left, _middle(box, other))
    )
    visible = min(end_x, right) - max(first_x, left)
    return _is_beside(box, other) and visible < MIN_VISIBLE_WIDTH * (right - left)


def _middle(box: Box, other: Box) -> int:
    """Return the column half-way between the borders of two people, of whom the other is at the right or at the left."""
    is_right = other[0] + other[2] > box[0] + box[2]
    return int((box[2] + other[0]) / 2) if is_right else int((box[0] + other[2]) / 2)


def _is_beside(box: Box, other: Box) -> bool:
    common = min(box[3], other[3]) - max(box[1], other[1])
    return common > MIN_COMMON_HEIGHT * min(box[3] - box[1], other[3] - other[1])


def is_framed_alike(crop: Crop, frame_width: int, frame_height: int) -> bool:
    """Return whether the whole frame shows the person about as the training clips do, which are not cut to the people in them
    either: then it is as good a crop, and no detector's noise is in it."""
    return iou(crop.box, (0, 0, frame_width, frame_height)) >= MIN_FRAME_IOU


def visible_body(tracklet: Tracklet) -> Body:
    """Return how much of the person the median look shows."""
    scores_K = tracklet.keypoints_K3[:, 2]

    def is_visible(keypoints: list[int]) -> bool:
        return bool(scores_K[keypoints].min() >= MIN_VISIBLE_SCORE)

    if is_visible([*KNEES, *ANKLES]):
        return Body.WHOLE
    return Body.NO_LEGS if is_visible(HIPS) else Body.HEAD_AND_SHOULDERS


def person_height(tracklet: Tracklet, scale: PersonScale) -> float:
    """Return the height of the whole person in pixels: the box's, or what shoulders and trunk suggest where legs are hidden."""
    body = visible_body(tracklet)
    if body is Body.WHOLE:
        return tracklet.height
    keypoints_K3 = tracklet.keypoints_K3
    estimates = [float(np.ptp(keypoints_K3[SHOULDERS, 0])) / scale.shoulder_width]
    if body is Body.NO_LEGS:
        shoulders_y, hips_y = (float(keypoints_K3[pair, 1].mean()) for pair in (SHOULDERS, HIPS))
        estimates.append((hips_y - shoulders_y) / scale.torso)
    return max(min(estimates), tracklet.height)


def _even(value: float) -> int:
    return 2 * round(value / 2)
