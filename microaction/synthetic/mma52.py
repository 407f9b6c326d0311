"""How often and how long the actions of MMA-52 are, roughly: what drawn untrimmed videos imitate.

Frequencies are those of its train split, rounded. Lengths were chosen so that videos of 5 to 15 s show its medians.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from microaction.taxonomy import ACTIONS


class Habit(NamedTuple):
    """Of 10,000 instances in videos, those of an action, and their median length where no video's end cuts it."""

    per_10_000: float
    median_s: float


_TABLE = {
    # Body
    "shaking body": Habit(270, 5.6),
    "sitting straightly": Habit(150, 1.8),
    "shrugging": Habit(95, 2.0),
    "turning around": Habit(0.7, 1.5),
    "rising up": Habit(70, 3.8),
    # Head
    "bowing head": Habit(260, 1.1),
    "head up": Habit(120, 1.7),
    "tilting head": Habit(650, 1.7),
    "turning head": Habit(1490, 2.3),
    "nodding": Habit(930, 1.7),
    "shaking head": Habit(480, 1.6),
    # Upper limb
    "scratching arms": Habit(170, 9.1),
    "playing objects": Habit(300, 11),
    "putting hands together": Habit(80, 1.8),
    "rubbing hands": Habit(20, 2.2),
    "pointing oneself": Habit(55, 3.1),
    "clenching fist": Habit(20, 3.7),
    "stretching arms": Habit(290, 2.9),
    "retracting arms": Habit(35, 1.0),
    "waving": Habit(690, 3.8),
    "spreading hands": Habit(100, 1.7),
    "hands touching fingers": Habit(640, 32),
    "other finger movements": Habit(140, 8.5),
    "illustrative gestures": Habit(180, 5.1),
    # Lower limb
    "shaking legs": Habit(670, 27),
    "curling legs": Habit(160, 40),
    "spread legs": Habit(90, 2.3),
    "closing legs": Habit(80, 1.7),
    "crossing legs": Habit(80, 12),
    "stretching feet": Habit(190, 1.7),
    "retracting feet": Habit(230, 1.8),
    "tiptoe": Habit(55, 3.0),
    # Body-hand
    "scratching or touching neck": Habit(30, 2.6),
    "scratching or touching chest": Habit(15, 2.1),
    "scratching or touching back": Habit(15, 2.6),
    "scratching or touching shoulder": Habit(12, 9.7),
    "arms akimbo": Habit(2, 3.3),
    "crossing arms": Habit(80, 20),
    # Head-hand
    "playing or tidying hair": Habit(35, 2.9),
    "scratching or touching hindbrain": Habit(20, 5.5),
    "scratching or touching forehead": Habit(20, 3.5),
    "scratching or touching face": Habit(35, 2.6),
    "rubbing eyes": Habit(20, 3.2),
    "touching nose": Habit(55, 2.6),
    "touching ears": Habit(30, 3.7),
    "covering face": Habit(0.7, 3.1),
    "covering mouth": Habit(7, 2.4),
    "pushing glasses": Habit(25, 1.0),
    # Leg-hand
    "patting legs": Habit(210, 1.4),
    "touching legs": Habit(540, 5.8),
    "scratching legs": Habit(80, 8.7),
    "scratching feet": Habit(6, 4.1),
}

HABITS: Mapping[int, Habit] = MappingProxyType({action: _TABLE[name] for action, name in enumerate(ACTIONS)})
"""Action label → habit."""
