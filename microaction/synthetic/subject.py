"""The subject in front of the camera: the appearance of an invented person, derived from a seed.

Lengths are in torso lengths: from the hips to the shoulder line of the average subject is 1. Colors are RGB in 0..255.
"""

import colorsys
from dataclasses import dataclass
from enum import Enum
from typing import Self

import numpy as np

Color = tuple[int, int, int]

SKINS: tuple[Color, ...] = (
    (244, 208, 184),
    (232, 184, 152),
    (214, 158, 122),
    (186, 126, 90),
    (148, 98, 68),
    (112, 74, 54),
)
HAIRS: tuple[Color, ...] = (
    (24, 20, 18),
    (52, 34, 22),
    (92, 58, 32),
    (150, 104, 52),
    (196, 160, 96),
    (120, 118, 116),
    (140, 56, 30),
)
# Clothes are cool, trousers dark and shoes light, so that warm hands and faces, and feet, stand out at 100 pixels. Arbitrary
# clothes would need a network that was trained on many more people than a demonstration can draw.
COOL_HUES = (0.45, 0.75)
GLASSES_PROBABILITY = 0.3
LONG_SLEEVES_PROBABILITY = 0.6


class HairStyle(Enum):
    """The outline of the hair."""

    SHORT = "short"
    LONG = "long"
    BUN = "bun"
    RECEDING = "receding"


@dataclass(frozen=True)
class Subject:
    """Appearance and proportions of one person. Equal seeds give equal people."""

    skin: Color
    hair: Color
    shirt: Color
    trousers: Color
    shoes: Color
    hair_style: HairStyle
    has_glasses: bool
    has_long_sleeves: bool
    has_stripes: bool
    torso_length: float
    shoulder_half_width: float
    head_scale: float
    arm_scale: float
    hand_scale: float
    limb_scale: float

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Return the person of a seed, which must be at least 0."""
        rng = np.random.default_rng([seed, 0x5B])
        skin = _jitter(SKINS[rng.integers(len(SKINS))], 8, rng)
        hair = _jitter(HAIRS[rng.integers(len(HAIRS))], 8, rng)
        shirt = random_color(rng, COOL_HUES, saturation=(0.25, 0.7), value=(0.45, 0.8))
        trousers = random_color(rng, COOL_HUES, saturation=(0.1, 0.4), value=(0.12, 0.3))
        shoes = random_color(rng, saturation=(0.0, 0.15), value=(0.85, 1.0))
        styles = tuple(HairStyle)
        return cls(
            skin=skin,
            hair=hair,
            shirt=shirt,
            trousers=trousers,
            shoes=shoes,
            hair_style=styles[rng.integers(len(styles))],
            has_glasses=bool(rng.random() < GLASSES_PROBABILITY),
            has_long_sleeves=bool(rng.random() < LONG_SLEEVES_PROBABILITY),
            has_stripes=bool(rng.random() < 0.3),
            torso_length=float(rng.uniform(0.96, 1.04)),
            shoulder_half_width=float(rng.uniform(0.42, 0.50)),
            head_scale=float(rng.uniform(0.94, 1.06)),
            arm_scale=float(rng.uniform(0.96, 1.05)),
            hand_scale=float(rng.uniform(0.92, 1.08)),
            limb_scale=float(rng.uniform(0.9, 1.12)),
        )


def shade(color: Color, factor: float) -> Color:
    """Return the color made darker (factor < 1) or lighter (> 1)."""
    red, green, blue = (min(255, int(channel * factor)) for channel in color)
    return red, green, blue


def random_color(
    rng: np.random.Generator,
    hue: tuple[float, float] = (0.0, 1.0),
    *,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> Color:
    """Return a random color with hue, saturation and value, each in 0..1, between these bounds."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
    red, green, blue = (int(255 * channel) for channel in rgb)
    return red, green, blue


def _jitter(color: Color, spread: int, rng: np.random.Generator) -> Color:
    red, green, blue = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in color)
    return red, green, blue
