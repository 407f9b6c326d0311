"""The 52 micro-actions of MA-52 and the 7 body parts they belong to.

The names and their order are the dataset's own (Guo et al., "Benchmarking Micro-action Recognition", IEEE TCSVT 34(7),
2024): the position of a name is its label index in the dataset's lists and the column of a model's scores.
"""

from typing import Final

# Body part -> its actions, both in label order. Everything below is derived from this one table.
_ACTIONS_BY_BODY_PART: Final[dict[str, tuple[str, ...]]] = {
    "body": (
        "shaking body",
        "sitting straightly",
        "shrugging",
        "turning around",
        "rising up",
    ),
    "head": (
        "bowing head",
        "head up",
        "tilting head",
        "turning head",
        "nodding",
        "shaking head",
    ),
    "upper limb": (
        "scratching arms",
        "playing objects",
        "putting hands together",
        "rubbing hands",
        "pointing oneself",
        "clenching fist",
        "stretching arms",
        "retracting arms",
        "waving",
        "spreading hands",
        "hands touching fingers",
        "other finger movements",
        "illustrative gestures",
    ),
    "lower limb": (
        "shaking legs",
        "curling legs",
        "spread legs",
        "closing legs",
        "crossing legs",
        "stretching feet",
        "retracting feet",
        "tiptoe",
    ),
    "body-hand": (
        "scratching or touching neck",
        "scratching or touching chest",
        "scratching or touching back",
        "scratching or touching shoulder",
        "arms akimbo",
        "crossing arms",
    ),
    "head-hand": (
        "playing or tidying hair",
        "scratching or touching hindbrain",
        "scratching or touching forehead",
        "scratching or touching face",
        "rubbing eyes",
        "touching nose",
        "touching ears",
        "covering face",
        "covering mouth",
        "pushing glasses",
    ),
    "leg-hand": (
        "patting legs",
        "touching legs",
        "scratching legs",
        "scratching feet",
    ),
}

BODY_PARTS: Final[tuple[str, ...]] = tuple(_ACTIONS_BY_BODY_PART)
"""The 7 body parts; the position is the body label."""

ACTIONS: Final[tuple[str, ...]] = tuple(name for names in _ACTIONS_BY_BODY_PART.values() for name in names)
"""The 52 action names; the position is the action label."""

BODY_PART_OF: Final[tuple[int, ...]] = tuple(
    body_part for body_part, names in enumerate(_ACTIONS_BY_BODY_PART.values()) for _ in names
)
"""The body label of each action label."""
