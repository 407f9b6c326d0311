"""The 28 keypoints of a drawn person, as a detector would give them: with noise, scores and misses.

Shapes: N frames, K keypoints.
"""

import cmath
from collections.abc import Iterable

import numpy as np

from microaction.skeletons import Skeleton as Keypoints
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.synthetic.canvas import Camera
from microaction.synthetic.figure import FINGER_LENGTH, HAND_RADIUS, OPEN_FINGERS, SIDE_VIEW_YAW
from microaction.synthetic.skeleton import HandShape, Skeleton

NOISE = 0.012  # torso lengths
MISSES = 0.03
HIDDEN_MISSES = 0.8  # of what lies behind the body or the head
SCORES = (0.55, 0.95)
EYE, EAR = complex(0.4, -0.1), complex(1.0, 0.02)  # in the head frame
RIGHT, LEFT = -1, 1  # of the person; the image shows them mirrored
FINGERS_OF = {
    HandShape.OPEN: 1.0,
    HandShape.POINT: 0.7,
    HandShape.FLAT: 0.6,
    HandShape.RELAXED: 0.4,
    HandShape.FIST: 0.2,
}


def points_of(skeleton: Skeleton) -> tuple[list[complex], list[bool]]:
    """Return the keypoints [K] in figure coordinates, in the order of published skeletons, and whether each can be seen."""
    posture, shift = skeleton.posture, skeleton.face_shift
    is_profile = abs(posture.head_yaw) > SIDE_VIEW_YAW
    squeeze = 1 - 0.35 * abs(posture.head_yaw)
    points, is_seen = [skeleton.on_head(shift * 1.15 + 0.2j), skeleton.neck], [True, True]
    for side in (RIGHT, LEFT):
        hidden = posture.hands[side].is_behind
        points += [skeleton.shoulders[side], skeleton.elbows[side], skeleton.hands[side]]
        is_seen += [True, not hidden, not hidden]
    for side in (RIGHT, LEFT):
        points += [skeleton.hips[side], skeleton.knees[side], skeleton.feet[side]]
        is_seen += [True] * 3
    for part in (EYE, EAR):
        for side in (RIGHT, LEFT):
            moves = shift if part is EYE else 0j
            width = squeeze if part is EYE else 1.0
            points.append(skeleton.on_head(moves + complex(side * part.real * width, part.imag)))
            is_far = side * posture.head_yaw > 0  # the side of the head that is turned away
            is_seen.append(not is_profile if part is EYE else not (is_far and abs(posture.head_yaw) > 0.5))
    for side in (LEFT, RIGHT):
        points += _fingers(skeleton, side)
        is_seen += [not posture.hands[side].is_behind] * len(OPEN_FINGERS)
    return points, is_seen


def _fingers(skeleton: Skeleton, side: int) -> list[complex]:
    """Return the tips of the five fingers of a hand."""
    hand, pose = skeleton.hands[side], skeleton.posture.hands[side]
    forearm = hand - skeleton.elbows[side]
    direction = forearm / max(abs(forearm), 1e-6)
    if pose.fingers is not None:
        direction = complex(side * pose.fingers.real, pose.fingers.imag) / abs(pose.fingers)
    spread = FINGERS_OF[pose.shape]
    length = (HAND_RADIUS + spread * FINGER_LENGTH) * skeleton.subject.hand_scale
    return [hand + direction * cmath.exp(1j * spread * angle) * length for angle in OPEN_FINGERS]


def detected(scenes: Iterable[tuple[Camera, Skeleton]], size: tuple[int, int], rng: np.random.Generator) -> Keypoints:
    """Return the keypoints of one person in the frames of a clip of (width, height), with a detector's errors."""
    width, height = size
    keypoints, scores = [], []
    for camera, skeleton in scenes:
        points, is_seen = points_of(skeleton)
        px_K = camera.origin_px + np.array(points) * camera.px_per_unit
        noise_K2 = rng.normal(0, NOISE * camera.px_per_unit, (NUM_KEYPOINTS, 2))
        xy_K2 = np.stack([px_K.real, px_K.imag], axis=1) + noise_K2
        is_missed_K = rng.random(NUM_KEYPOINTS) < np.where(is_seen, MISSES, HIDDEN_MISSES)
        is_missed_K |= (xy_K2 <= 0).any(axis=1) | (xy_K2[:, 0] >= width) | (xy_K2[:, 1] >= height)
        keypoints.append(np.where(is_missed_K[:, None], 0, xy_K2))
        scores.append(np.where(is_missed_K, 0, rng.uniform(*SCORES, NUM_KEYPOINTS)))
    return Keypoints.checked(np.stack(keypoints)[None], np.stack(scores)[None], width, height, "a drawn clip")
