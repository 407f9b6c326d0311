"""Acting: from the table of motions and a point in time to a posture.

A performance is one action over a span of time, with random variation. The subject also breathes, sways and blinks. Times
are in seconds from the start of the video.
"""

import cmath
import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from microaction.synthetic.motions import (
    GLASSES_ACTION,
    LATERAL_CHANNELS,
    MOTIONS,
    Body,
    Hand,
    Leg,
    Motion,
    Who,
)
from microaction.synthetic.skeleton import REST_ELBOW, REST_FOOT, REST_KNEE, SIDES, HandPose, Posture

BREATH_HZ = (0.2, 0.32)
SWAY_HZ = (0.1, 0.3)
BLINK_EVERY_S = (2.0, 5.0)
BLINK_S = 0.12
REST_SPREAD = 0.07  # torso lengths; resting hands, knees and feet vary by this much from clip to clip


@dataclass(frozen=True)
class Performance:
    """One action over [start_s, end_s), with its side (+1 or -1) and its variation as factors."""

    action: int
    start_s: float
    end_s: float
    side: int
    phase: float  # in periods
    hold_gain: float
    swing_gain: float
    rate_gain: float
    ramp_gain: float

    @classmethod
    def random(cls, action: int, start_s: float, end_s: float, rng: np.random.Generator) -> Self:
        """Return the action with a random side and variation."""
        return cls(
            action=action,
            start_s=start_s,
            end_s=end_s,
            side=int(rng.choice(SIDES)),
            phase=float(rng.random()),
            hold_gain=float(rng.uniform(0.9, 1.1)),
            swing_gain=float(rng.uniform(0.85, 1.2)),
            rate_gain=float(rng.uniform(0.88, 1.12)),
            ramp_gain=float(rng.uniform(0.7, 1.2)),
        )

    @property
    def motion(self) -> Motion:
        """The action's entry in the table of motions."""
        return MOTIONS[self.action]

    def weight(self, time_s: float) -> float:
        """Return 0 outside the span, 1 in its middle, and a smooth ramp between them, inside the span."""
        ramp_s = min(self.motion.ramp_s * self.ramp_gain, (self.end_s - self.start_s) / 2)
        inside = min(time_s - self.start_s, self.end_s - time_s) / max(ramp_s, 1e-6)
        clipped = min(max(inside, 0.0), 1.0)
        return clipped * clipped * (3 - 2 * clipped)

    def wave(self, time_s: float, lag: float = 0.0) -> float:
        """Return the swing at a time, from -1 to 1."""
        return math.sin(2 * math.pi * self._periods(time_s, lag))

    def is_alternate(self, time_s: float) -> bool:
        """Return whether the time is in the second half of a period."""
        return self._periods(time_s, 0.0) % 1.0 >= 0.5

    def _periods(self, time_s: float, lag: float) -> float:
        return (time_s - self.start_s) * self.motion.rate_hz * self.rate_gain + self.phase + lag


@dataclass(frozen=True)
class Idler:
    """How a subject sits without an action: breath, sway, blinks, and where hands, knees and feet rest."""

    breath_hz: float
    sway_hz: float
    phase: float
    blink_every_s: float
    rest_hands: tuple[complex, complex]
    rest_knees: tuple[complex, complex]
    rest_feet: tuple[complex, complex]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Return a random way of sitting."""
        return cls(
            breath_hz=float(rng.uniform(*BREATH_HZ)),
            sway_hz=float(rng.uniform(*SWAY_HZ)),
            phase=float(rng.random()),
            blink_every_s=float(rng.uniform(*BLINK_EVERY_S)),
            rest_hands=_pair(rng, 0j),
            rest_knees=_pair(rng, REST_KNEE),
            rest_feet=_pair(rng, REST_FOOT),
        )

    def posture(self, time_s: float) -> Posture:
        """Return the posture at a time."""
        breath = math.sin(2 * math.pi * (self.breath_hz * time_s + self.phase))
        sway = math.sin(2 * math.pi * (self.sway_hz * time_s + 2 * self.phase))
        nod = math.sin(2 * math.pi * (1.3 * self.sway_hz * time_s + 3 * self.phase))
        posture = Posture(
            torso_roll=0.015 * sway,
            shoulder_lift=0.008 * breath,
            torso_length=0.004 * breath,
            head_roll=0.03 * nod,
            head_yaw=0.07 * sway,
            head_pitch=0.05 * nod,
            eyes_closed=float((time_s + self.phase * 5) % self.blink_every_s < BLINK_S),
        )
        for side, hand, knee, foot in zip(SIDES, self.rest_hands, self.rest_knees, self.rest_feet, strict=True):
            posture.rest_offset[side] = hand
            posture.knees[side] = knee
            posture.feet[side] = foot
        return posture


def act(posture: Posture, performance: Performance, time_s: float) -> None:
    """Change the idle posture, in place, to that of the performance at a time."""
    weight = performance.weight(time_s)
    posture.wears_glasses = posture.wears_glasses or performance.action == GLASSES_ACTION
    if weight <= 0:
        return
    for move in performance.motion.moves:
        match move:
            case Body():
                mirror = performance.side if move.channel in LATERAL_CHANNELS else 1
                value = move.hold * performance.hold_gain
                value += move.swing * performance.swing_gain * performance.wave(time_s)
                old = getattr(posture, move.channel)
                setattr(posture, move.channel, old + weight * mirror * value)
            case Hand():
                for side in sides_of(move.who, performance.side):
                    posture.hands[side] = _hand_pose(move, performance, time_s)
            case Leg():
                for side in sides_of(move.who, performance.side):
                    _move_leg(posture, side, move, performance, time_s)


def _hand_pose(move: Hand, performance: Performance, time_s: float) -> HandPose:
    weight = performance.weight(time_s)
    wave = performance.wave(time_s, move.lag)
    wave_down = performance.wave(time_s, move.lag + 0.25) if move.is_round else wave
    swing = performance.swing_gain * complex(move.swing.real * wave, move.swing.imag * wave_down)
    arrived = weight > 0.5  # halfway the hand takes its shape and goes behind the body
    shape = move.alternate if move.alternate and performance.is_alternate(time_s) else move.shape
    rest = HandPose()
    return HandPose(
        landmark=move.landmark,
        offset=move.offset + swing,
        reach=weight,
        elbow=REST_ELBOW + weight * (move.elbow - REST_ELBOW),
        shape=shape if arrived else rest.shape,
        fingers=move.fingers * cmath.exp(1j * move.turn * wave) if arrived and move.fingers is not None else None,
        is_behind=move.is_behind and arrived,
        holds_object=move.holds_object and arrived,
    )


def _move_leg(posture: Posture, side: int, move: Leg, performance: Performance, time_s: float) -> None:
    weight = performance.weight(time_s)
    swing = performance.swing_gain * performance.wave(time_s, move.lag)
    if move.knee is not None:
        posture.knees[side] += weight * (move.knee + swing * move.knee_swing - posture.knees[side])
    if move.foot is not None:
        posture.feet[side] += weight * (move.foot + swing * move.foot_swing - posture.feet[side])
    posture.foot_stretch[side] += weight * move.stretch


def sides_of(who: Who, acting_side: int) -> tuple[int, ...]:
    """Return the sides of the limbs that move in a performance on a side."""
    match who:
        case Who.ACTING:
            return (acting_side,)
        case Who.OTHER:
            return (-acting_side,)
        case Who.BOTH:
            return SIDES


def _pair(rng: np.random.Generator, center: complex) -> tuple[complex, complex]:
    x = rng.uniform(-REST_SPREAD, REST_SPREAD, 2)
    y = rng.uniform(-REST_SPREAD, REST_SPREAD, 2) / 2
    return center + complex(x[0], y[0]), center + complex(x[1], y[1])
