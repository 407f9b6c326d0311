import numpy as np
import pytest

from microaction.synthetic.motions import MOTIONS
from microaction.synthetic.performance import Performance
from microaction.synthetic.render import DEFAULT_SIZE, draw_frames
from microaction.synthetic.room import HIPS_Y
from microaction.synthetic.skeleton import SIDES, Posture, Skeleton
from microaction.synthetic.subject import Subject
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

FPS = 4  # few frames, spread over two seconds
NUM_FRAMES = 8
VISIBLE_CHANGE = 25  # of 255
MIN_CHANGED_PX = 60  # of 160×192, about a hand


def frames_of(action: int | None, subject_seed: int = 3, seed: int = 5) -> np.ndarray:
    """Return frames [T, H, W, 3] of the action, or with None of the same person sitting still in the same room."""
    performances = [] if action is None else [Performance.random(action, 0.0, 3.0, np.random.default_rng(seed))]
    rng = np.random.default_rng(seed)
    subject = Subject.from_seed(subject_seed)
    return np.stack(list(draw_frames(subject, performances, NUM_FRAMES, rng, size=DEFAULT_SIZE, fps=FPS)))


def changed_px(action: int) -> np.ndarray:
    """Return a mask [T, H, W] of where a person who acts differs from one who sits still."""
    difference = np.abs(frames_of(action).astype(int) - frames_of(None)).max(axis=-1)
    return np.asarray(difference > VISIBLE_CHANGE)


def test_every_action_has_a_motion() -> None:
    assert sorted(MOTIONS) == list(range(len(ACTIONS)))


@pytest.mark.parametrize("action", range(len(ACTIONS)), ids=ACTIONS)
def test_every_action_is_visible(action: int) -> None:
    per_frame = changed_px(action).sum(axis=(1, 2))
    assert np.median(per_frame) > MIN_CHANGED_PX, f"{ACTIONS[action]} moves too little: {per_frame} pixels per frame"


@pytest.mark.parametrize(("body_part", "is_above_hips"), [("head", True), ("head-hand", True), ("lower limb", False)])
def test_actions_move_their_body_part(body_part: str, is_above_hips: bool) -> None:
    hips_row = int(HIPS_Y * DEFAULT_SIZE.height)
    for action in range(len(ACTIONS)):
        if BODY_PARTS[BODY_PART_OF[action]] == body_part:
            changed = changed_px(action)
            above, below = changed[:, :hips_row].sum(), changed[:, hips_row:].sum()
            assert (above > below) == is_above_hips, (
                f"{ACTIONS[action]}: {above} pixels above the hips, {below} below them"
            )


def test_actions_differ_from_each_other() -> None:
    means = [frames_of(action).astype(float).mean(axis=0) for action in range(len(ACTIONS))]
    for i, one in enumerate(means):
        for j, other in enumerate(means[:i]):
            assert (np.abs(one - other).max(axis=-1) > VISIBLE_CHANGE / 2).sum() > 10, f"{ACTIONS[i]} ≈ {ACTIONS[j]}"


def test_actions_occur_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    sides = [Performance.random(0, 0.0, 2.0, rng).side for _ in range(200)]
    assert 60 < sides.count(1) < 140


def test_an_action_stays_inside_its_span() -> None:
    performance = Performance.random(9, 1.0, 3.0, np.random.default_rng(0))
    assert performance.weight(1.0) == performance.weight(3.0) == performance.weight(0.5) == 0.0
    assert performance.weight(2.0) == 1.0


def test_a_person_sitting_still_is_symmetric() -> None:
    skeleton = Skeleton(Subject.from_seed(0), Posture())
    right, left = SIDES
    for joints in (skeleton.shoulders, skeleton.elbows, skeleton.hands, skeleton.knees, skeleton.feet):
        assert joints[right] == pytest.approx(-joints[left].conjugate())
