"""The one rectangle of the frame that shows a person during a stay, in the scale and place that people have in training clips.

Zooming in on what is seen, or following the person from frame to frame, costs more accuracy than any other choice: the
rectangle is constant, and where the legs are hidden it keeps the scale of a whole person and leaves the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from microaction.people.detector import Box
from microaction.people.following import Stay
from microaction.people.looks import overlap
from microaction.preprocessing import PersonScale
from microaction.video.framing import Crop

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 5, 6, 11, 12
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)
IS_SEEN = 0.15  # score of keypoints that are in the picture: 0.26 and more; of others 0.12 and less
SAME_SPACE = 0.5  # overlap of two people's boxes from which no crop shows one of them alone


class Body(StrEnum):
    """How much of a person is in the picture."""

    WHOLE = "whole"
    NO_LEGS = "no legs"
    HEAD_AND_SHOULDERS = "head and shoulders"


@dataclass(frozen=True)
class PersonCrop:
    """The rectangle that shows a person during a stay. `height_px`: of the whole person, estimated where only a part is seen.

    `is_cut`: whether a neighbor would be in the rectangle, so that it ends in the middle between the two. `is_overlapped`:
    whether a neighbor covers the person, or is covered, so that no rectangle shows one of them alone.
    """

    crop: Crop
    body: Body
    height_px: float
    is_cut: bool
    is_overlapped: bool


def crop_around(stay: Stay, neighbors: Sequence[Box], frame_size: tuple[int, int], scale: PersonScale) -> PersonCrop:
    """Return the crop of a stay among the boxes of those who are seen with the person.

    `frame_size`: width and height of the frames. Sides are rounded to even pixels.
    """
    width = frame_size[0]
    left, _, right, _ = stay.box
    body, height_px = visible_body(stay), person_height(stay, scale)
    crop_height = _even(height_px / scale.height)
    crop_width = _even(crop_height * scale.aspect)
    shoulders_y = float(stay.keypoints_K3[[LEFT_SHOULDER, RIGHT_SHOULDER], 1].mean())
    crop_left = _even((left + right) / 2 - scale.center_x * crop_width)
    crop_top = _even(shoulders_y - scale.shoulders_y * crop_height)
    first_x, end_x = 0, width
    for other in neighbors:
        middle = int((right + other[0]) / 2 if other[0] + other[2] > left + right else (left + other[2]) / 2)
        if other[0] + other[2] > left + right:
            end_x = min(end_x, middle)
        else:
            first_x = max(first_x, middle)
    is_cut = (first_x > max(crop_left, 0)) or (end_x < min(crop_left + crop_width, width))
    first_x = min(first_x, max(int(right) - 1, 0))
    end_x = max(end_x, first_x + 1)
    return PersonCrop(
        Crop(crop_left, crop_top, crop_width, crop_height, first_x, end_x),
        body,
        height_px,
        is_cut,
        any(overlap(stay.box, other) > SAME_SPACE for other in neighbors),
    )


def visible_body(stay: Stay) -> Body:
    """Return how much of the person the median look shows."""
    scores_K = stay.keypoints_K3[:, 2]

    def is_seen(keypoints: tuple[int, ...]) -> bool:
        return bool(scores_K[list(keypoints)].min() >= IS_SEEN)

    if is_seen((*KNEES, *ANKLES)):
        return Body.WHOLE
    return Body.NO_LEGS if is_seen(HIPS) else Body.HEAD_AND_SHOULDERS


def person_height(stay: Stay, scale: PersonScale) -> float:
    """Return the height of the whole person in pixels: the box's, or what shoulders and trunk suggest where legs are hidden."""
    body = visible_body(stay)
    if body is Body.WHOLE:
        return stay.height
    keypoints_K3 = stay.keypoints_K3
    shoulders = abs(float(keypoints_K3[LEFT_SHOULDER, 0] - keypoints_K3[RIGHT_SHOULDER, 0]))
    estimates = [shoulders / scale.shoulder_width]
    if body is Body.NO_LEGS:
        shoulders_y, hips_y = (
            float(keypoints_K3[[one, other], 1].mean())
            for one, other in ((LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP))
        )
        estimates.append((hips_y - shoulders_y) / scale.torso)
    return max(min(estimates), stay.height)


def _even(value: float) -> int:
    return 2 * round(value / 2)
