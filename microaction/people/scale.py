"""How people lie in clips: a look at the middle frame of each, and the medians that crops of people are made after.

Shapes: M people, K = 17 keypoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from microaction.people.crops import MIN_VISIBLE_SCORE, Body, person_height, visible_body
from microaction.people.detector import HIPS, NUM_KEYPOINTS, SHOULDERS, Detection, MoveNet
from microaction.people.following import MIN_HEIGHT, MIN_HEIGHT_OF_TALLEST, Tracklet
from microaction.preprocessing import PersonScale
from microaction.video import Framing, Region
from microaction.video.clip import ClipFrames, open_clip
from microaction.video.decoding.sources import Source
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import Span

MIN_CLIPS = 5  # that show somebody: a median of fewer says little
CLIP_LOOK_LIMITS = Limits(time_s=30)
DIGITS = 4  # of a measured fraction: a tenth of a pixel in a thousand


@dataclass(frozen=True)
class ClipLook:
    """Who is seen in the middle frame of a clip. `width` and `height`: of that frame, or of the clip's region, in pixels."""

    width: int
    height: int
    people: tuple[Detection, ...]

    @property
    def participants(self) -> list[Detection]:
        """The people from left to right, without those who are much smaller than the tallest or than the frame."""
        heights = [_height(person) for person in self.people]
        min_height = max(MIN_HEIGHT * self.height, MIN_HEIGHT_OF_TALLEST * max(heights, default=0.0))
        large = [person for person, height in zip(self.people, heights, strict=True) if height >= min_height]
        return sorted(large, key=lambda person: person.box[0] + person.box[2])


def tallest(people: Sequence[Detection]) -> Detection:
    """Return the person with the highest box; the first of equals. Raises `ValueError` if there is nobody."""
    return max(people, key=_height)


def as_tracklet(person: Detection) -> Tracklet:
    """Return a person who was looked at once, as crops are made around."""
    return Tracklet(0, Span(0, 1), person.box, person.keypoints_K3, person.score, 1)


def look_at_clip(source: Source | ClipFrames, region: Region | None = None) -> ClipLook:
    """Return who is seen in the middle frame of a clip, in pixels of its region if one is given.

    Decodes in this process. Raises `DecodeError`, `InvalidRegionError`, and `ValueError` where the detector's weights are
    missing.
    """
    frames = source if isinstance(source, ClipFrames) else ClipFrames.of(source)
    frame_HWC = frames.decode([frames.num_frames // 2], Framing(region=region).cut)[0]
    height, width = frame_HWC.shape[:2]
    return ClipLook(width, height, tuple(_detector().detect(frame_HWC)))


def load_clip_look(uri: str, region: Region | None = None, span: Span | None = None) -> ClipLook:
    """Return what `look_at_clip` does of a clip, or of a span of a file, decoded in a separate process.

    Raises `RuntimeError` too, for a fault of the decoder.
    """
    width, height, boxes_M4, keypoints_MK3, scores_M = sandboxed(uri, CLIP_LOOK_LIMITS, _look_arrays, uri, region, span)
    people = (
        Detection((box[0], box[1], box[2], box[3]), keypoints_K3, score)
        for box, keypoints_K3, score in zip(boxes_M4.tolist(), keypoints_MK3, scores_M.tolist(), strict=True)
    )
    return ClipLook(width, height, tuple(people))


def measure_scale(looks: Sequence[ClipLook]) -> PersonScale | None:
    """Return how people lie in clips: the medians of the tallest person of each, in any order of the clips.

    A clip counts if its tallest person's shoulders are visible. Returns None if fewer than `MIN_CLIPS` do. The proportions of
    the body are those of people who are visible from head to foot; if they are fewer than that, they are the defaults of
    `PersonScale`.
    """
    shown = [(look, as_tracklet(tallest(look.people))) for look in looks if look.people]
    shown = [(look, person) for look, person in shown if _is_visible(person, SHOULDERS)]
    if len(shown) < MIN_CLIPS:
        return None
    measured = {
        "shoulders_y": [_mean_y(person, SHOULDERS) / look.height for look, person in shown],
        "center_x": [(person.box[0] + person.box[2]) / 2 / look.width for look, person in shown],
        "aspect": [look.width / look.height for look, _ in shown],
    }
    wholes = [person for _, person in shown if visible_body(person) is Body.WHOLE]
    proportions = {
        "shoulder_width": [float(np.ptp(person.keypoints_K3[SHOULDERS, 0])) / person.height for person in wholes],
        "torso": [
            (_mean_y(person, HIPS) - _mean_y(person, SHOULDERS)) / person.height
            for person in wholes
            if _is_visible(person, HIPS)
        ],
    }
    body = PersonScale(
        **{
            name: _median(values)
            for name, values in proportions.items()
            if len(values) >= MIN_CLIPS and _median(values) > 0
        }
    )
    measured["height"] = [person_height(person, body) / look.height for look, person in shown]
    return body.model_copy(update={name: _median(values) for name, values in measured.items()})


def _look_arrays(
    uri: str, region: Region | None, span: Span | None
) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray]:
    """Return the fields of a `ClipLook` as arrays: a process of its own returns no classes but those of errors."""
    with open_clip(uri, span) as frames:
        look = look_at_clip(frames, region)
    M = len(look.people)
    boxes_M4 = np.array([person.box for person in look.people], np.float64).reshape(M, 4)
    keypoints_MK3 = np.array([person.keypoints_K3 for person in look.people], np.float32).reshape(M, NUM_KEYPOINTS, 3)
    return (
        look.width,
        look.height,
        boxes_M4,
        keypoints_MK3,
        np.array([person.score for person in look.people], np.float64),
    )


@cache
def _detector() -> MoveNet:
    return MoveNet()


def _height(person: Detection) -> float:
    return person.box[3] - person.box[1]


def _is_visible(person: Tracklet, keypoints: list[int]) -> bool:
    return bool(person.keypoints_K3[keypoints, 2].min() >= MIN_VISIBLE_SCORE)


def _mean_y(person: Tracklet, keypoints: list[int]) -> float:
    return float(person.keypoints_K3[keypoints, 1].mean())


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), DIGITS)
