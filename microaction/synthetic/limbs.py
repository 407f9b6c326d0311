"""What an action keeps busy: two actions are visible at the same time only if they move different parts of the body."""

from collections.abc import Collection
from functools import cache

from microaction.synthetic.figure import SIDE_VIEW_YAW
from microaction.synthetic.motions import MOTIONS, Body, Hand
from microaction.synthetic.performance import sides_of
from microaction.synthetic.skeleton import SIDES

# Who rises and sits straightly, or bends, at the same time is seen to do neither.
SAME_LIMB = {"root_y": "height", "torso_length": "height"}


@cache
def limbs_of(action: int, side: int) -> frozenset[str]:
    """Return what an action on a side (+1 or -1) moves: channels of the body by name, and "hand +1", "leg -1" and the like."""
    limbs: set[str] = set()
    for move in MOTIONS[action].moves:
        if isinstance(move, Body):
            limbs.add(SAME_LIMB.get(move.channel, move.channel))
            if move.channel == "head_yaw" and abs(move.hold) > SIDE_VIEW_YAW:
                limbs.update(("head_pitch", "head_roll"))  # from the side a nod is hardly seen
        else:
            kind = "hand" if isinstance(move, Hand) else "leg"
            limbs.update(f"{kind} {of_side:+d}" for of_side in sides_of(move.who, side))
    return frozenset(limbs)


def free_sides(action: int, busy_limbs: Collection[str]) -> tuple[int, ...]:
    """Return the sides on which an action can be performed while others keep some limbs busy; none if it has to wait."""
    return tuple(side for side in SIDES if limbs_of(action, side).isdisjoint(busy_limbs))


def are_compatible(action: int, other: int) -> bool:
    """Return whether two actions can be performed at the same time. An action and itself cannot."""
    return action != other and bool(free_sides(action, limbs_of(other, SIDES[0])))
