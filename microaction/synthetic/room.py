"""The set: wall, floor and chair, painted once, and what disturbs the frames: motion, drift, flicker and grain."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from microaction.synthetic.canvas import Camera, Canvas
from microaction.synthetic.subject import COOL_HUES, Color, random_color, shade

PX_PER_UNIT = 0.262  # of the frame's height: crown to soles fill about four fifths of it
HIPS_Y = 0.60  # of the frame's height: the middle of the hips
MARGIN_PX = 0.03  # of the frame's height; painted beyond the edges, so that the camera can shake
NOISE_PADDING_PX = 16


@dataclass(frozen=True)
class Conditions:
    """What varies from clip to clip with any subject: camera, light, grain, and an object that passes behind."""

    scale: float
    offset: complex  # of the frame's height
    jitter: float  # of the frame's height
    jitter_hz: float
    phase: float
    gain: float
    drift: float
    drift_hz: float
    noise_std: float
    passer_color: Color
    passer_speed: float  # frame widths per second
    passer_radius: float  # of the frame's height

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Conditions":
        """Return random conditions."""
        return cls(
            scale=float(rng.uniform(0.94, 1.06)),
            offset=complex(rng.uniform(-0.025, 0.025), rng.uniform(-0.012, 0.012)),
            jitter=float(rng.uniform(0.0, 0.006)),
            jitter_hz=float(rng.uniform(0.3, 1.5)),
            phase=float(rng.random()),
            gain=float(rng.uniform(0.82, 1.1)),
            drift=float(rng.uniform(0.0, 0.05)),
            drift_hz=float(rng.uniform(0.1, 0.5)),
            noise_std=float(rng.uniform(1.0, 5.0)),
            passer_color=random_color(rng, saturation=(0.0, 0.2), value=(0.5, 0.8)),
            passer_speed=float(rng.uniform(-0.25, 0.25)),
            passer_radius=float(rng.uniform(0.03, 0.07)),
        )


class Room:
    """The room of one video of `width`×`height` pixels."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width = width
        self.height = height
        self.conditions = Conditions.random(rng)
        self._margin_px = math.ceil(MARGIN_PX * height)
        self.px_per_unit = PX_PER_UNIT * height * self.conditions.scale
        self._hips_px = complex(0.5 * width, HIPS_Y * height) + self.conditions.offset * height
        self._backdrop_HWC = _paint_backdrop(width, height, self._margin_px, rng)
        self._chair = _Chair(
            random_color(rng, COOL_HUES, saturation=(0.0, 0.2), value=(0.5, 0.75)),
            bool(rng.random() < 0.5),
            float(rng.uniform(0.5, 0.66)),
        )
        padded = (height + NOISE_PADDING_PX, width + NOISE_PADDING_PX, 3)
        noise = rng.normal(128.0, self.conditions.noise_std, padded)
        self._noise_HWC = noise.clip(0, 255).astype(np.uint8)
        self._noise_rng = np.random.default_rng(rng.integers(2**32))

    def camera(self, time_s: float) -> Camera:
        """Return where figures are in the frame at a time."""
        return Camera(self._hips_px + self._shake_px(time_s), self.px_per_unit)

    def canvas(self, time_s: float) -> Canvas:
        """Return the empty room at a time, with the chair, ready for the subject."""
        conditions = self.conditions
        shake_px = self._shake_px(time_s)
        center = (
            self._margin_px + self.width / 2 - 0.5 - shake_px.real,
            self._margin_px + self.height / 2 - 0.5 - shake_px.imag,
        )
        image_HWC = cv2.getRectSubPix(self._backdrop_HWC, (self.width, self.height), center)
        canvas = Canvas(image_HWC, self.camera(time_s))
        across = (conditions.phase * 7 + conditions.passer_speed * time_s) % 1.4 - 0.2
        passer_px = complex(across * self.width, (0.16 + 0.3 * conditions.phase) * self.height)
        passer = (passer_px - canvas.origin_px) / self.px_per_unit
        canvas.disc(passer, conditions.passer_radius * self.height / self.px_per_unit, conditions.passer_color)
        self._chair.draw(canvas)
        return canvas

    def expose(self, canvas: Canvas, time_s: float) -> np.ndarray:
        """Return the finished frame: what was drawn, under light and grain."""
        conditions = self.conditions
        light = conditions.gain * (
            1 + conditions.drift * math.sin(2 * math.pi * (conditions.drift_hz * time_s + conditions.phase))
        )
        top, left = self._noise_rng.integers(NOISE_PADDING_PX, size=2)
        noise_HWC = self._noise_HWC[top : top + self.height, left : left + self.width]
        return np.asarray(cv2.addWeighted(canvas.image_HWC, light, noise_HWC, 1.0, -128.0))

    def _shake_px(self, time_s: float) -> complex:
        conditions = self.conditions
        angle = 2 * math.pi * (conditions.jitter_hz * time_s + conditions.phase)
        return conditions.jitter * self.height * complex(math.sin(angle), math.sin(1.7 * angle + 1))


@dataclass(frozen=True)
class _Chair:
    color: Color
    has_arms: bool
    back_half_width: float

    def draw(self, canvas: Canvas) -> None:
        dark = shade(self.color, 0.75)
        half = self.back_half_width
        for side in (-1, 1):
            canvas.limb(complex(side * half, 0.3), complex(side * half * 1.05, 1.12), 0.04, 0.035, dark)
        canvas.limb(complex(-half + 0.1, -0.62), complex(half - 0.1, -0.62), 0.16, 0.16, self.color)
        canvas.polygon([-half - 0.05 - 0.6j, half + 0.05 - 0.6j, half + 0.1j, -half + 0.1j], self.color)
        canvas.limb(complex(-half, 0.2), complex(half, 0.2), 0.1, 0.1, dark)
        if self.has_arms:
            for side in (-1, 1):
                canvas.limb(complex(side * (half + 0.05), -0.2), complex(side * (half + 0.08), 0.2), 0.045, 0.045, dark)


def _paint_backdrop(width: int, height: int, margin_px: int, rng: np.random.Generator) -> np.ndarray:
    """Return wall, with a few flat objects on it, and floor, blurred like what is behind the focus."""
    full_width, full_height = width + 2 * margin_px, height + 2 * margin_px
    wall = random_color(rng, saturation=(0.0, 0.12), value=(0.65, 0.95))
    backdrop_HWC = np.full((full_height, full_width, 3), wall, np.uint8)
    for _ in range(int(rng.integers(0, 5))):
        left, top = int(rng.integers(full_width)), int(rng.integers(full_height // 2))
        right, bottom = left + int(rng.integers(8, full_width // 2)), top + int(rng.integers(8, full_height // 2))
        tint = int(rng.integers(-30, 31))
        red, green, blue = (int(np.clip(channel + tint, 0, 255)) for channel in wall)
        cv2.rectangle(backdrop_HWC, (left, top), (right, bottom), (red, green, blue), cv2.FILLED)
    floor_y = margin_px + int(height * rng.uniform(0.7, 0.8))
    backdrop_HWC[floor_y:] = random_color(rng, saturation=(0.0, 0.15), value=(0.45, 0.7))
    slope = np.linspace(rng.uniform(0.82, 1.0), rng.uniform(0.82, 1.0), full_width)[None, :, None]
    shaded = (backdrop_HWC * slope).astype(np.uint8)
    return np.asarray(cv2.blur(shaded, (3, 3)))
