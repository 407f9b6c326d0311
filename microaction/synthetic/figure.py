"""Draws a subject from the skeleton, back to front: what is behind the body, the trunk, legs, head and arms."""

import cmath

from microaction.synthetic.canvas import Canvas
from microaction.synthetic.skeleton import SIDES, HandPose, HandShape, Skeleton
from microaction.synthetic.subject import Color, HairStyle, Subject, shade

OUTLINE = 0.018  # torso lengths; a darker rim keeps a hand visible in front of a face of the same color
HAND_RADIUS = 0.105
FINGER_LENGTH = 0.15
FINGER_RADIUS = 0.026
OPEN_FINGERS = (-0.9, -0.35, 0.0, 0.35, 0.75)  # radians from the direction of the hand
WHITE: Color = (245, 245, 245)
INK: Color = (24, 22, 22)
SIDE_VIEW_YAW = 1.18  # beyond it the face is drawn from the side
LIPS = 0.68  # as a fraction of the skin's brightness
OBJECT_COLOR: Color = (250, 210, 30)


def draw_figure(canvas: Canvas, skeleton: Skeleton) -> None:
    """Draw the whole person."""
    hands = skeleton.posture.hands
    behind = [side for side in SIDES if hands[side].is_behind]
    if skeleton.subject.hair_style is HairStyle.LONG:
        _draw_long_hair(canvas, skeleton)
    for side in behind:
        _draw_arm(canvas, skeleton, side)
    _draw_trunk(canvas, skeleton)
    for side in sorted(SIDES, key=lambda side: -skeleton.feet[side].imag):  # a raised leg lies over the other
        _draw_leg(canvas, skeleton, side)
    _draw_head(canvas, skeleton)
    for side in SIDES:
        if side not in behind:
            _draw_arm(canvas, skeleton, side)


def _draw_trunk(canvas: Canvas, skeleton: Skeleton) -> None:
    subject = skeleton.subject
    left, right = skeleton.shoulders[-1], skeleton.shoulders[1]
    hip_left, hip_right = skeleton.hips[-1] - 0.1, skeleton.hips[1] + 0.1
    radius = 0.16 * subject.limb_scale
    canvas.limb(hip_left, hip_right, radius, radius, subject.trousers)
    collar = skeleton.neck
    trunk = [left - 0.06, left - 0.1j, collar - 0.08, collar + 0.08, right - 0.1j, right + 0.06]
    waist = [hip_right + 0.02 + 0.05j, hip_left - 0.02 + 0.05j]
    canvas.polygon([*trunk, *waist], subject.shirt)
    if subject.has_stripes:
        for height in (0.25, 0.5, 0.75):
            start = left + height * (hip_left - left)
            canvas.stroke([start, right + height * (hip_right - right)], 0.05, shade(subject.shirt, 0.7))
    jaw = skeleton.head + 0.55j * skeleton.head_half.imag
    canvas.limb(collar + 0.04j, jaw, 0.13, 0.12, shade(subject.skin, 0.82))


def _draw_leg(canvas: Canvas, skeleton: Skeleton, side: int) -> None:
    subject, scale = skeleton.subject, skeleton.subject.limb_scale
    hip, knee, foot = skeleton.hips[side], skeleton.knees[side], skeleton.feet[side]
    rim = shade(subject.trousers, 0.6)
    for extra, color in ((OUTLINE, rim), (0.0, subject.trousers)):
        canvas.limb(knee, foot, 0.13 * scale + extra, 0.09 * scale + extra, color)
    for extra, color in ((OUTLINE, rim), (0.0, shade(subject.trousers, 1.12))):
        canvas.limb(hip, knee, 0.16 * scale + extra, 0.15 * scale + extra, color)
    stretch = skeleton.posture.foot_stretch[side]
    toes = complex(0.06 * side, 0.06 + 0.05 * abs(stretch))
    half = complex(0.12, 0.1) + max(stretch, 0.0) * complex(0.07, 0.02) + min(stretch, 0.0) * complex(-0.10, 0.04)
    direction = complex(0.25 * side, 1.0)
    canvas.ellipse(foot + toes, half + OUTLINE * (1 + 1j), direction, shade(subject.shoes, 0.5))
    canvas.ellipse(foot + toes, half, direction, subject.shoes)
    if stretch > 0.5:  # the sole is visible
        canvas.ellipse(foot + toes + 0.01j, half * 0.6, direction, WHITE)


def _draw_long_hair(canvas: Canvas, skeleton: Skeleton) -> None:
    half = skeleton.head_half
    top = skeleton.head
    canvas.limb(
        top,
        top + 0.85j * half.imag * skeleton.head_axis,
        half.real * 1.15,
        half.real * 1.0,
        shade(skeleton.subject.hair, 0.85),
    )


def _draw_head(canvas: Canvas, skeleton: Skeleton) -> None:
    """Draw the skull in the color of the hair, the face over it, moved by yaw and pitch, then the features."""
    subject, posture = skeleton.subject, skeleton.posture
    half, axis, shift = skeleton.head_half, skeleton.head_axis, skeleton.face_shift
    yaw, pitch = posture.head_yaw, posture.head_pitch
    if subject.hair_style is HairStyle.BUN:
        canvas.disc(skeleton.on_head(complex(-0.3 * yaw, -1.12)), 0.12, subject.hair)
    if abs(yaw) < 1.0:
        for side in SIDES:
            canvas.disc(skeleton.on_head(complex(side * (1.0 - 0.1 * abs(yaw)), 0.02)), 0.06, shade(subject.skin, 0.85))
    canvas.ellipse(skeleton.head, complex(half.real * 1.04, half.imag * 1.04), axis, subject.hair)
    hairline = 0.30 if subject.hair_style is HairStyle.RECEDING else 0.20
    face_half = complex(half.real * (0.94 - 0.22 * abs(yaw)), half.imag * (0.86 - 0.14 * max(pitch, 0.0)))
    face = skeleton.on_head(complex(0.36 * yaw, 0.32 - 0.5 * hairline + 0.26 * pitch))
    canvas.ellipse(face, face_half, axis, subject.skin)
    if abs(yaw) > SIDE_VIEW_YAW:  # from the side the nose is the only feature
        canvas.disc(skeleton.on_head(complex(0.9 * yaw, 0.25)), 0.05, subject.skin)
        return
    squeeze = 1 - 0.35 * abs(yaw)
    for side in SIDES:
        eye = skeleton.on_head(shift + complex(0.4 * side * squeeze, -0.1))
        if posture.eyes_closed > 0.5:
            canvas.stroke([eye - 0.05 * axis, eye + 0.05 * axis], 0.02, INK)
        else:
            canvas.ellipse(eye, complex(0.062, 0.048), axis, WHITE)
            canvas.disc(eye, 0.036, INK)
        brow = skeleton.on_head(shift + complex(0.4 * side * squeeze, -0.33))
        canvas.stroke([brow - 0.07 * axis, brow + 0.07 * axis], 0.03, shade(subject.hair, 0.8))
    nose = skeleton.on_head(shift * 1.15 + 0.2j)
    canvas.ellipse(nose, complex(0.035, 0.07), axis, shade(subject.skin, 0.78))
    mouth = skeleton.on_head(shift + 0.56j)
    canvas.ellipse(mouth, complex(0.09 * squeeze, 0.028), axis, shade(subject.skin, LIPS))
    if subject.has_glasses or posture.wears_glasses:
        _draw_glasses(canvas, skeleton, shift - 1j * posture.glasses_lift / half.imag, squeeze)


def _draw_glasses(canvas: Canvas, skeleton: Skeleton, shift: complex, squeeze: float) -> None:
    rims = []
    for side in SIDES:
        center = shift + complex(0.42 * side * squeeze, -0.08)
        corners = (-0.28 - 0.22j, 0.28 - 0.22j, 0.28 + 0.22j, -0.28 + 0.22j)
        canvas.stroke([skeleton.on_head(center + corner) for corner in corners], 0.024, INK, closed=True)
        rims.append(skeleton.on_head(center))
    canvas.stroke(rims, 0.02, INK)


def _draw_arm(canvas: Canvas, skeleton: Skeleton, side: int) -> None:
    subject, scale = skeleton.subject, skeleton.subject.limb_scale
    shoulder, elbow, hand = skeleton.shoulders[side], skeleton.elbows[side], skeleton.hands[side]
    sleeve = shade(subject.shirt, 0.9)
    rim = shade(subject.shirt, 0.55)
    lower = sleeve if subject.has_long_sleeves else subject.skin
    lower_rim = rim if subject.has_long_sleeves else shade(subject.skin, 0.55)
    canvas.limb(shoulder, elbow, 0.12 * scale + OUTLINE, 0.095 * scale + OUTLINE, rim)
    canvas.limb(shoulder, elbow, 0.12 * scale, 0.095 * scale, sleeve)
    canvas.limb(elbow, hand, 0.09 * scale + OUTLINE, 0.07 * scale + OUTLINE, lower_rim)
    canvas.limb(elbow, hand, 0.09 * scale, 0.07 * scale, lower)
    forearm = hand - elbow
    direction = forearm / max(abs(forearm), 1e-6)
    pose = skeleton.posture.hands[side]
    if pose.fingers is not None:
        fingers = complex(side * pose.fingers.real, pose.fingers.imag)
        direction = fingers / abs(fingers)
    _draw_hand(canvas, subject, hand, direction, pose)


def _draw_hand(canvas: Canvas, subject: Subject, hand: complex, direction: complex, pose: HandPose) -> None:
    size = subject.hand_scale
    radius = HAND_RADIUS * size
    if pose.holds_object:
        across = direction * 0.34
        canvas.limb(hand - across, hand + across, 0.06, 0.06, INK)
        canvas.limb(hand - across, hand + across, 0.045, 0.045, OBJECT_COLOR)
    bars: list[tuple[complex, complex, float]] = []  # start, end, radius
    match pose.shape:
        case HandShape.FIST:
            bars.append((hand, hand, radius * 1.15))
        case HandShape.RELAXED:
            bars.append((hand, hand + direction * radius * 0.8, radius))
        case HandShape.FLAT:
            bars.append((hand - direction * radius * 0.4, hand + direction * radius * 1.6, radius * 0.85))
        case HandShape.POINT:
            tip = hand + direction * (radius + FINGER_LENGTH * size)
            bars += [(hand, hand, radius), (hand, tip, FINGER_RADIUS * 1.4 * size)]
        case HandShape.OPEN:
            bars.append((hand, hand, radius))
            for angle in OPEN_FINGERS:
                tip = hand + direction * cmath.exp(1j * angle) * (radius + FINGER_LENGTH * size)
                bars.append((hand, tip, FINGER_RADIUS * size))
    rim = shade(subject.skin, 0.5)
    for start, end, width in bars:
        canvas.limb(start, end, width + OUTLINE, width + OUTLINE, rim)
    for start, end, width in bars:
        canvas.limb(start, end, width, width, subject.skin)
