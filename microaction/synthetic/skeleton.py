"""The jointed body: turns a posture into the positions of all joints, and landmarks of the body into positions of hands.

Points are complex numbers, x to the right of the image and y down, in torso lengths; 0 is the middle of the hips of a subject
who sits still. Sides are +1 (right in the image) and -1. In points "of a side" x points outward, so that one number serves
both sides.
"""

import cmath
import math
from dataclasses import dataclass, field
from enum import Enum

from microaction.synthetic.subject import Subject

SIDES = (1, -1)
UPPER_ARM = 0.60
FOREARM = 0.58
MAX_STRETCH = 1.25  # maximum length of an arm against its own: a lean towards the camera, drawn flat
NECK = 0.10
HEAD_HALF_WIDTH = 0.30
HEAD_HALF_HEIGHT = 0.37
SHOULDER_Y = -0.94  # torso frame
HIP_X = 0.2
REST_KNEE = 0.40 + 0.34j  # of a side
REST_FOOT = 0.38 + 0.99j


class HandShape(Enum):
    """What the fingers do."""

    RELAXED = "relaxed"
    OPEN = "open"
    FIST = "fist"
    POINT = "point"
    FLAT = "flat"


class Landmark(Enum):
    """A point of the body that a hand can move to: its frame of reference, and its coordinates of a side in that frame.

    Frames: head (units: half width and half height of the head, crown at y = -1, chin at 1), torso (shoulders at
    y = -1, hips at 0), seat (the chair, where nothing moves) and leg (0 at the hip, 1 at the knee, 2 at the foot).
    """

    CROWN = ("head", 0.30 - 0.95j)
    FOREHEAD = ("head", 0.05 - 0.62j)
    EYE = ("head", 0.40 - 0.12j)
    TEMPLE = ("head", 1.05 - 0.15j)
    NOSE = ("head", 0.0 + 0.22j)
    MOUTH = ("head", 0.0 + 0.58j)
    CHEEK = ("head", 0.66 + 0.42j)
    EAR = ("head", 1.12 + 0.02j)
    FACE = ("head", 0.30 + 0.10j)
    NAPE = ("head", 0.45 - 0.15j)
    NECK = ("torso", 0.17 - 1.08j)
    STERNUM = ("torso", 0.0 - 0.78j)
    CHEST = ("torso", 0.0 - 0.50j)
    BELLY = ("torso", 0.0 - 0.28j)
    BACK = ("torso", 0.30 - 0.50j)
    OTHER_SHOULDER = ("torso", -0.42 - 0.96j)
    HIP = ("torso", 0.36 - 0.08j)
    AIR = ("torso", 0.0 + 0.0j)
    SEAT = ("seat", 0.0 + 0.0j)
    THIGH = ("leg", 0.55 + 0j)
    KNEE = ("leg", 1.0 + 0j)
    SHIN = ("leg", 1.55 + 0j)
    FOOT = ("leg", 2.0 + 0j)

    @property
    def frame(self) -> str:
        """Name of the frame of reference."""
        return self.value[0]

    @property
    def point(self) -> complex:
        """Coordinates in the frame of reference."""
        return self.value[1]


REST_LANDMARK = Landmark.THIGH
REST_ELBOW = 0.8 + 0.2j


@dataclass
class HandPose:
    """Where a hand is and how it is held. A `reach` of 0 is at rest on the thigh, 1 is at the landmark."""

    landmark: Landmark = REST_LANDMARK
    offset: complex = 0j
    reach: float = 0.0
    elbow: complex = REST_ELBOW  # of a side: the direction of the elbow; shorter than 1: turned to the camera
    shape: HandShape = HandShape.RELAXED
    fingers: complex | None = None  # of a side: the direction of the fingers; None: along the forearm
    is_behind: bool = False
    holds_object: bool = False


@dataclass
class Posture:
    """All that moves. Scalars are positive to the right of the image; all zeros are a subject who sits still."""

    root_x: float = 0.0
    root_y: float = 0.0
    torso_roll: float = 0.0  # radians
    torso_length: float = 0.0  # added to 1
    twist: float = 0.0  # 1: about 60 degrees
    shoulder_lift: float = 0.0
    head_roll: float = 0.0  # radians
    head_yaw: float = 0.0  # 1: about 60 degrees
    head_pitch: float = 0.0  # 1: chin on the chest
    eyes_closed: float = 0.0
    glasses_lift: float = 0.0
    wears_glasses: bool = False  # in this clip, whatever the subject usually wears
    rest_offset: dict[int, complex] = field(default_factory=lambda: dict.fromkeys(SIDES, 0j))
    hands: dict[int, HandPose] = field(default_factory=lambda: {side: HandPose() for side in SIDES})
    knees: dict[int, complex] = field(default_factory=lambda: dict.fromkeys(SIDES, REST_KNEE))
    feet: dict[int, complex] = field(default_factory=lambda: dict.fromkeys(SIDES, REST_FOOT))
    foot_stretch: dict[int, float] = field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))  # 1: sole, -1: on toes


class Skeleton:
    """The joints of a subject in a posture."""

    def __init__(self, subject: Subject, posture: Posture) -> None:
        self.subject = subject
        self.posture = posture
        self.root = complex(posture.root_x, posture.root_y)
        self._torso_turn = cmath.exp(1j * posture.torso_roll)
        self._torso_length = subject.torso_length * (1 + posture.torso_length)
        self.head_axis = cmath.exp(1j * (0.8 * posture.torso_roll + posture.head_roll))
        self.head_half = complex(HEAD_HALF_WIDTH, HEAD_HALF_HEIGHT) * subject.head_scale
        neck = NECK + 0.9 * self.head_half.imag - 0.16 * posture.head_pitch
        self.neck = self.torso(-1j)
        self.head = self.neck - 1j * self.head_axis * neck + 0.12 * posture.twist
        self.shoulders = {side: self._shoulder(side) for side in SIDES}
        self.hips = {side: self.root + side * HIP_X * (1 - 0.3 * abs(posture.twist)) for side in SIDES}
        self.knees = {side: _of_side(posture.knees[side], side) + 0.4 * posture.root_x for side in SIDES}
        self.feet = {side: _of_side(posture.feet[side], side) for side in SIDES}
        self.hands = {side: self._hand(side) for side in SIDES}
        self.elbows = {side: self._elbow(side) for side in SIDES}

    def torso(self, point: complex) -> complex:
        """Return the figure coordinates of a point of the torso frame."""
        return self.root + self._torso_turn * complex(point.real, point.imag * self._torso_length)

    def on_head(self, point: complex) -> complex:
        """Return the figure coordinates of a point of the head frame."""
        return self.head + self.head_axis * complex(point.real * self.head_half.real, point.imag * self.head_half.imag)

    @property
    def face_shift(self) -> complex:
        """How far yaw and pitch move the features over the head, in the head frame."""
        return complex(0.62 * self.posture.head_yaw, 0.42 * self.posture.head_pitch)

    def position(self, landmark: Landmark, side: int) -> complex:
        """Return the figure coordinates of a landmark for the hand of a side."""
        match landmark.frame:
            case "head":
                return self.on_head(_of_side(landmark.point, side) + 0.8 * self.face_shift)
            case "torso":
                return self.torso(_of_side(landmark.point, side))
            case "seat":
                return _of_side(landmark.point, side)
            case _:
                along = landmark.point.real
                if along <= 1:
                    return self.hips[side] + along * (self.knees[side] - self.hips[side])
                return self.knees[side] + (along - 1) * (self.feet[side] - self.knees[side])

    def _shoulder(self, side: int) -> complex:
        half_width = self.subject.shoulder_half_width * (1 - 0.5 * abs(self.posture.twist))
        shoulder = self.torso(complex(side * half_width + 0.12 * self.posture.twist, SHOULDER_Y))
        return shoulder - 1j * self.posture.shoulder_lift

    def _hand(self, side: int) -> complex:
        pose = self.posture.hands[side]
        rest = self.position(REST_LANDMARK, side) + _of_side(self.posture.rest_offset[side], side)
        goal = self.position(pose.landmark, side) + _of_side(pose.offset, side)
        reached = rest + pose.reach * (goal - rest)
        arm = reached - self.shoulders[side]
        longest = (UPPER_ARM + FOREARM) * self.subject.arm_scale * MAX_STRETCH
        return self.shoulders[side] + arm * min(1.0, longest / max(abs(arm), 1e-6))

    def _elbow(self, side: int) -> complex:
        """Return where two bones of fixed length meet, off the line from shoulder to hand, on the side that the elbow
        points to."""
        arm = self.hands[side] - self.shoulders[side]
        distance = max(abs(arm), 1e-6)
        scale = max(self.subject.arm_scale, distance / (UPPER_ARM + FOREARM))
        upper, fore = UPPER_ARM * scale, FOREARM * scale
        along = (distance**2 + upper**2 - fore**2) / (2 * distance)
        along = min(max(along, -upper), upper)
        across = math.sqrt(upper**2 - along**2)
        unit = arm / distance
        normal = unit * 1j
        hint = _of_side(self.posture.hands[side].elbow, side)
        bend = hint.real * normal.real + hint.imag * normal.imag
        return self.shoulders[side] + unit * along + normal * across * min(max(bend, -1.0), 1.0)


def _of_side(point: complex, side: int) -> complex:
    return complex(side * point.real, point.imag)
