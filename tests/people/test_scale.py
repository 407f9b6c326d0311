"""How people lie in clips: medians of what is visible, and nothing where too few clips show anybody."""

from pathlib import Path

import numpy as np
import pytest

from microaction.people import ClipLook, Detection, load_clip_look, look_at_clip, measure_scale
from microaction.people.scale import MIN_CLIPS, tallest
from microaction.preprocessing import PersonScale
from microaction.video import DecodeError, Region
from tests.people.scenes import draw_clip

WIDTH, HEIGHT = 200, 240


def person(
    height: float = 160, *, left: float = 60, top: float = 40, shoulders: float = 0.9, legs: float = 0.9
) -> Detection:
    """Return somebody half as wide as high, with shoulders at a fifth and hips at half of the height; `shoulders` and `legs`
    are scores of those keypoints."""
    keypoints_K3 = np.full((17, 3), 0.9, np.float32)
    keypoints_K3[:, 0] = left + height / 4
    keypoints_K3[5:7, 0] += [height / 8, -height / 8]
    keypoints_K3[[5, 6], 1] = top + height / 5
    keypoints_K3[[11, 12], 1] = top + height / 2
    keypoints_K3[5:7, 2], keypoints_K3[13:, 2] = shoulders, legs
    return Detection((left, top, left + height / 2, top + height), keypoints_K3, 0.9)


def look(*people: Detection) -> ClipLook:
    return ClipLook(WIDTH, HEIGHT, people)


def test_a_scale_is_the_median_of_the_tallest_person_of_each_clip() -> None:
    heights = [100, 120, 144, 180, 220]
    looks = [look(person(40, left=0), person(height)) for height in heights]
    scale = measure_scale([looks[i] for i in (3, 0, 4, 1, 2)])
    assert scale == PersonScale(
        height=0.6,
        shoulders_y=round((40 + 144 / 5) / HEIGHT, 4),
        center_x=round((60 + 144 / 4) / WIDTH, 4),
        aspect=round(WIDTH / HEIGHT, 4),
        shoulder_width=0.25,
        torso=0.3,
    )


def test_clips_that_show_nobody_do_not_count() -> None:
    seen = [look(person())] * MIN_CLIPS
    nobody = [look()] * 20
    assert measure_scale(nobody) is None
    assert measure_scale([]) is None
    assert measure_scale([*nobody, *seen[1:]]) is None
    assert measure_scale([*nobody, *seen]) == measure_scale(seen)
    assert measure_scale([*nobody, *[look(person(shoulders=0.1))] * MIN_CLIPS]) is None, "shoulders are not visible"


def test_hidden_keypoints_do_not_count() -> None:
    """Where legs are hidden, the box is not the person's height, which shoulders and trunk suggest instead."""
    hidden = [look(person(60, legs=0.1))] * MIN_CLIPS
    usual = PersonScale()
    scale = measure_scale(hidden)
    assert scale is not None
    assert (scale.shoulder_width, scale.torso) == (usual.shoulder_width, usual.torso)
    assert scale.height == round(15 / usual.shoulder_width / HEIGHT, 4)
    mixed = measure_scale([*hidden, *[look(person())] * MIN_CLIPS])
    assert mixed is not None
    assert (mixed.shoulder_width, mixed.torso) == (0.25, 0.3), "those of people who are visible as a whole"


def test_participants_are_counted_from_left_to_right() -> None:
    small, left, right = person(60, left=0), person(160, left=10), person(150, left=110)
    seen = look(right, small, left)
    assert seen.participants == [left, right]
    assert tallest(seen.participants) is left
    assert look(person(40)).participants == [], "less than a fifth of the frame"


def test_a_look_at_a_clip_finds_who_is_in_its_middle_frame(tmp_path: Path) -> None:
    clip = draw_clip(tmp_path / "pair.mp4", 3, 11)
    whole = look_at_clip(str(clip))
    assert (whole.width, whole.height) == (320, 192)
    assert len(whole.participants) == 2
    alone = look_at_clip(str(clip), Region(0, 0, 160, 192))
    assert (alone.width, len(alone.participants)) == (160, 1)
    loaded = load_clip_look(str(clip))
    assert [found.box for found in loaded.people] == [found.box for found in whole.people]
    np.testing.assert_array_equal(loaded.people[0].keypoints_K3, whole.people[0].keypoints_K3)
    with pytest.raises(DecodeError, match=r"absent\.mp4: no such file"):
        load_clip_look(str(tmp_path / "absent.mp4"))
