"""The 52 micro-actions as a table of small joint motions: what is held, what swings, and how fast.

A motion is a list of moves that run at the same time. Each move holds a value and may swing around it, once per period of the
motion's rate. Points are complex: x points outward on the limb's own side (negative: across the middle), y points down.
Moves of `ACTING` are on a random side in each performance, so that every action is left as often as right.

The movements are exaggerated and distinct from each other on purpose: they must be distinguishable in a frame of 100 pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from microaction.synthetic.skeleton import HandShape, Landmark
from microaction.taxonomy import ACTIONS

SLOW_HZ = 0.8
BRISK_HZ = 1.2
FAST_HZ = 1.45  # 8 frames over 2 s are 0.25 s apart: 2.7 frames per period


class Who(Enum):
    """Which of the two limbs moves."""

    ACTING = "acting"
    OTHER = "other"
    BOTH = "both"


ACTING, OTHER, BOTH = Who


@dataclass(frozen=True)
class Body:
    """A scalar of `Posture`, by its name. Lateral ones are mirrored with the acting side."""

    channel: str
    hold: float = 0.0
    swing: float = 0.0


@dataclass(frozen=True)
class Hand:
    """A hand moves to a landmark and may swing there. `turn` swings the direction of its fingers."""

    who: Who
    landmark: Landmark
    offset: complex = 0j
    swing: complex = 0j
    lag: float = 0.0  # in periods; of the other hand when both move
    is_round: bool = False  # the vertical part of the swing is a quarter period late: a circle
    shape: HandShape = HandShape.RELAXED
    alternate: HandShape | None = None  # in the second half of each period
    elbow: complex = 0.7 + 0.5j
    fingers: complex | None = None
    turn: float = 0.0  # radians
    is_behind: bool = False
    holds_object: bool = False


@dataclass(frozen=True)
class Leg:
    """Knee and foot of a side; None stays at rest. A `stretch` of 1 shows the sole, -1 stands on the toes."""

    who: Who
    knee: complex | None = None
    foot: complex | None = None
    knee_swing: complex = 0j
    foot_swing: complex = 0j
    lag: float = 0.0
    stretch: float = 0.0


@dataclass(frozen=True)
class Motion:
    """The moves of an action, their rate, and the time in which they start and end."""

    moves: tuple[Body | Hand | Leg, ...]
    rate_hz: float = BRISK_HZ
    ramp_s: float = 0.25


def _motion(*moves: Body | Hand | Leg, rate_hz: float = BRISK_HZ, ramp_s: float = 0.25) -> Motion:
    return Motion(moves, rate_hz, ramp_s)


OPEN, FIST, POINT, FLAT = HandShape.OPEN, HandShape.FIST, HandShape.POINT, HandShape.FLAT
UP, IN, DOWN, OUT = -1j, -1 + 0j, 1j, 1 + 0j
ELBOW_OUT, ELBOW_DOWN, ELBOW_HIGH = 1 + 0.1j, 0.35 + 0.9j, 0.9 - 0.7j

_TABLE: dict[str, Motion] = {
    # Body
    "shaking body": _motion(Body("torso_roll", swing=0.2), Body("root_x", swing=0.1)),
    "sitting straightly": _motion(
        Body("torso_length", 0.2),
        Body("head_pitch", -0.25),
        Hand(BOTH, Landmark.HIP, 0.24 + 0.32j, elbow=0.5 + 0j),  # pushing up from the seat
        ramp_s=0.4,
    ),
    "shrugging": _motion(Body("shoulder_lift", 0.19, 0.13), rate_hz=SLOW_HZ),
    "turning around": _motion(
        Body("twist", 1.0),
        Body("head_yaw", 1.45),
        Body("torso_roll", 0.06),
        Hand(OTHER, Landmark.AIR, -0.45 - 0.2j, elbow=ELBOW_DOWN),
        ramp_s=0.35,
    ),
    "rising up": _motion(Body("root_y", -0.34, 0.04), rate_hz=0.5, ramp_s=0.35),
    # Head
    "bowing head": _motion(Body("head_pitch", 1.25)),
    "head up": _motion(Body("head_pitch", -1.15)),
    "tilting head": _motion(Body("head_roll", 0.48)),
    "turning head": _motion(Body("head_yaw", 1.0), Body("twist", 0.2)),
    "nodding": _motion(Body("head_pitch", 0.35, 0.75)),
    "shaking head": _motion(Body("head_yaw", 0.0, 0.85)),
    # Upper limb
    "scratching arms": _motion(
        Hand(ACTING, Landmark.AIR, -0.56 - 0.32j, 0.14 + 0.03j, elbow=ELBOW_DOWN),
        Hand(OTHER, Landmark.AIR, 0.86 - 0.36j, elbow=0.4 + 0.9j),
        rate_hz=FAST_HZ,
    ),
    "playing objects": _motion(
        Hand(
            ACTING, Landmark.BELLY, 0.13 + 0.06j, 0.05 + 0.05j, holds_object=True, fingers=IN, turn=0.9, is_round=True
        ),
        Hand(OTHER, Landmark.BELLY, 0.17 + 0.08j, fingers=IN),
    ),
    "putting hands together": _motion(
        Hand(BOTH, Landmark.STERNUM, 0.06 + 0.08j, shape=FLAT, fingers=-0.1 - 1j, elbow=ELBOW_OUT)
    ),
    "rubbing hands": _motion(
        Hand(ACTING, Landmark.BELLY, 0.06 - 0.04j, 0.04 + 0.12j, shape=FLAT, fingers=-0.6 - 0.8j),
        Hand(OTHER, Landmark.BELLY, 0.06 - 0.04j, 0.04 + 0.12j, lag=0.5, shape=FLAT, fingers=-0.6 - 0.8j),
        rate_hz=FAST_HZ,
    ),
    "pointing oneself": _motion(
        Hand(ACTING, Landmark.STERNUM, 0.26 + 0.05j, 0.06 + 0j, shape=POINT, fingers=IN, elbow=ELBOW_HIGH)
    ),
    "clenching fist": _motion(
        Hand(ACTING, Landmark.AIR, 0.74 - 0.62j, shape=FIST, alternate=OPEN, fingers=UP, elbow=ELBOW_DOWN),
        rate_hz=SLOW_HZ,
    ),
    "stretching arms": _motion(
        Hand(BOTH, Landmark.AIR, 1.0 - 1.72j, 0.06 + 0.04j, shape=OPEN, elbow=0.2 + 0j), rate_hz=SLOW_HZ
    ),
    "retracting arms": _motion(
        Hand(BOTH, Landmark.AIR, 0.42 - 0.46j, 0.02 + 0.26j, shape=FIST, fingers=UP, elbow=0.3 + 0.8j), rate_hz=SLOW_HZ
    ),
    "waving": _motion(
        Hand(ACTING, Landmark.AIR, 0.78 - 1.3j, 0.2 - 0.02j, shape=OPEN, fingers=UP, turn=0.5, elbow=ELBOW_DOWN)
    ),
    "spreading hands": _motion(
        Hand(BOTH, Landmark.AIR, 0.98 - 0.34j, 0.07 + 0.03j, shape=OPEN, fingers=0.8 - 0.5j, elbow=ELBOW_DOWN),
        rate_hz=SLOW_HZ,
    ),
    "hands touching fingers": _motion(
        Hand(BOTH, Landmark.BELLY, 0.27 + 0.1j, 0.05 + 0j, shape=POINT, fingers=-1 - 0.2j, elbow=ELBOW_OUT)
    ),
    "other finger movements": _motion(
        Hand(ACTING, Landmark.AIR, 0.22 - 0.5j, shape=POINT, alternate=OPEN, fingers=-0.2 - 1j, turn=0.35)
    ),
    "illustrative gestures": _motion(
        Hand(ACTING, Landmark.AIR, 0.55 - 0.58j, 0.2 + 0.2j, is_round=True, shape=OPEN, fingers=0.3 - 1j),
        Hand(OTHER, Landmark.AIR, 0.55 - 0.58j, 0.2 + 0.2j, lag=0.5, is_round=True, shape=OPEN, fingers=0.3 - 1j),
        rate_hz=1.0,
    ),
    # Lower limb
    "shaking legs": _motion(Leg(BOTH, 0.38 + 0.34j, 0.38 + 0.99j, knee_swing=0.2 + 0j), rate_hz=FAST_HZ),
    "curling legs": _motion(Leg(BOTH, 0.42 + 0.0j, 0.2 + 0.52j)),
    "spread legs": _motion(Leg(BOTH, 0.82 + 0.30j, 0.80 + 0.96j)),
    "closing legs": _motion(Leg(BOTH, 0.12 + 0.36j, 0.12 + 1.0j)),
    "crossing legs": _motion(
        Leg(ACTING, -0.24 + 0.12j, -0.76 + 0.64j, foot_swing=0.03 + 0.04j), Leg(OTHER, 0.26 + 0.36j, 0.2 + 0.99j)
    ),
    "stretching feet": _motion(Leg(BOTH, 0.46 + 0.40j, 0.62 + 1.12j, stretch=1.0)),
    "retracting feet": _motion(Leg(BOTH, 0.42 + 0.36j, 0.16 + 0.7j, stretch=-0.3)),
    "tiptoe": _motion(Leg(BOTH, 0.38 + 0.06j, 0.36 + 0.82j, knee_swing=0.08j, stretch=-1.0), rate_hz=SLOW_HZ),
    # Body and hand
    "scratching or touching neck": _motion(
        Hand(ACTING, Landmark.NECK, 0.05 + 0.04j, 0.03 + 0.07j, elbow=1 + 0j),
        Body("head_roll", -0.3),
        rate_hz=FAST_HZ,
    ),
    "scratching or touching chest": _motion(
        Hand(ACTING, Landmark.CHEST, swing=0.02 + 0.15j, shape=FLAT, fingers=IN, elbow=ELBOW_OUT), rate_hz=FAST_HZ
    ),
    "scratching or touching back": _motion(
        Hand(ACTING, Landmark.BACK, swing=0.03 + 0.1j, elbow=1 + 0j, is_behind=True),
        Body("torso_roll", -0.14),
    ),
    "scratching or touching shoulder": _motion(
        Hand(ACTING, Landmark.OTHER_SHOULDER, swing=0.05 + 0.05j, elbow=0.2 + 1j), rate_hz=FAST_HZ
    ),
    "arms akimbo": _motion(Hand(BOTH, Landmark.HIP, shape=FIST, elbow=1 + 0j)),
    "crossing arms": _motion(
        Hand(ACTING, Landmark.AIR, -0.36 - 0.52j, elbow=0.75 + 0.9j),
        Hand(OTHER, Landmark.AIR, -0.34 - 0.42j, elbow=0.75 + 0.9j),
    ),
    # Head and hand
    "playing or tidying hair": _motion(Hand(ACTING, Landmark.CROWN, swing=0.14 + 0.03j, elbow=ELBOW_HIGH)),
    "scratching or touching hindbrain": _motion(
        Hand(BOTH, Landmark.NAPE, swing=0.03 + 0.06j, elbow=1 - 0.6j, is_behind=True)
    ),
    "scratching or touching forehead": _motion(
        Hand(ACTING, Landmark.FOREHEAD, swing=0.08 + 0j, shape=FLAT, fingers=IN, elbow=0.2 + 0.9j)
    ),
    "scratching or touching face": _motion(
        Hand(ACTING, Landmark.CHEEK, swing=0.02 + 0.07j, fingers=UP, elbow=ELBOW_DOWN),
        Body("head_roll", 0.26),
        rate_hz=FAST_HZ,
    ),
    "rubbing eyes": _motion(
        Hand(BOTH, Landmark.EYE, 0.02 + 0.02j, 0.06 + 0.03j, shape=FIST, elbow=1 + 0j), Body("eyes_closed", 1.0)
    ),
    "touching nose": _motion(
        Hand(ACTING, Landmark.NOSE, 0.04 + 0.17j, 0.0 + 0.02j, shape=POINT, fingers=-0.2 - 1j, elbow=0.3 + 0.9j)
    ),
    "touching ears": _motion(
        Hand(ACTING, Landmark.EAR, 0.05 + 0.02j, 0.05 + 0.03j, shape=FIST, elbow=ELBOW_OUT), rate_hz=SLOW_HZ
    ),
    "covering face": _motion(
        Hand(BOTH, Landmark.FACE, 0.02 - 0.04j, shape=OPEN, fingers=-0.15 - 1j, elbow=0.3 + 0.8j),
        Body("head_pitch", 0.35),
    ),
    "covering mouth": _motion(Hand(BOTH, Landmark.MOUTH, 0.1 + 0.03j, shape=FLAT, fingers=-1 - 0.1j, elbow=0.9 + 0.3j)),
    "pushing glasses": _motion(
        Hand(BOTH, Landmark.TEMPLE, 0.0 - 0.03j, 0.0 + 0.05j, shape=POINT, fingers=-1 - 0.3j, elbow=0.2 + 0.2j),
        Body("glasses_lift", 0.06, 0.06),
        rate_hz=SLOW_HZ,
    ),
    # Leg and hand
    "patting legs": _motion(Hand(BOTH, Landmark.THIGH, 0.02 - 0.16j, 0.02 + 0.16j, shape=FLAT, elbow=ELBOW_OUT)),
    "touching legs": _motion(Hand(BOTH, Landmark.KNEE, -0.02 + 0.02j, elbow=0.9 + 0j), Body("torso_length", -0.14)),
    "scratching legs": _motion(
        Hand(ACTING, Landmark.SHIN, 0.06 - 0.03j, 0.02 + 0.1j, elbow=0.6 + 0j),
        Body("torso_roll", 0.16),
        Body("torso_length", -0.2),
        rate_hz=FAST_HZ,
    ),
    "scratching feet": _motion(
        Hand(ACTING, Landmark.FOOT, -0.02 - 0.06j, 0.07 + 0.02j, elbow=0.5 + 0j),
        Body("torso_roll", 0.14),
        Body("torso_length", -0.48),
        Body("head_pitch", 0.6),
        rate_hz=FAST_HZ,
    ),
}

MOTIONS: Mapping[int, Motion] = MappingProxyType({action: _TABLE[name] for action, name in enumerate(ACTIONS)})
"""Action label → motion."""

LATERAL_CHANNELS = frozenset({"root_x", "torso_roll", "twist", "head_roll", "head_yaw"})
GLASSES_ACTION = ACTIONS.index("pushing glasses")
