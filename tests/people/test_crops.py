"""The crop of a person: in the scale of the training clips, cut in the middle to a neighbor, repeated at the edges."""

import numpy as np
import pytest

from microaction.errors import InvalidRegionError
from microaction.people import Body, Tracklet, crop_around
from microaction.people.crops import is_framed_alike, person_height
from microaction.preprocessing import PersonScale
from microaction.video import Framing
from microaction.video.framing import Crop
from microaction.video.windows import Span

SCALE = PersonScale(height=0.5, shoulders_y=0.3, center_x=0.5, aspect=0.8, shoulder_width=0.2, torso=0.25)
FRAME_WIDTH = 640


def tracklet(left: float = 280, *, seen: float = 1.0, hips: float = 1.0, height: float = 200) -> Tracklet:
    """Return somebody 80 pixels wide whose head is at y = 100; `seen` and `hips` are scores of legs and hips."""
    keypoints_K3 = np.ones((17, 3), np.float32)
    keypoints_K3[[5, 6]] = [(left + 60, 140, 1), (left + 20, 140, 1)]
    keypoints_K3[[11, 12]] = [(left + 55, 190, hips), (left + 25, 190, hips)]
    keypoints_K3[13:, 2] = seen
    return Tracklet(0, Span(0, 10), (left, 100, left + 80, 100 + height), keypoints_K3, 0.9, 5)


def test_a_person_lies_in_the_crop_as_in_the_training_clips() -> None:
    found = crop_around(tracklet(), [], FRAME_WIDTH, SCALE)
    crop = found.crop
    assert found.body is Body.WHOLE
    assert found.height_px == 200
    assert (crop.width, crop.height) == (320, 400)
    assert crop.left + crop.width / 2 == 320
    assert (140 - crop.top) / crop.height == pytest.approx(0.3, abs=0.01)
    assert not found.is_cut
    assert not found.is_occluded


def test_hidden_legs_keep_the_scale() -> None:
    assert person_height(tracklet(seen=0.1, height=90), SCALE) == 200, "40 / 0.2 and 50 / 0.25"
    assert crop_around(tracklet(seen=0.1, height=90), [], FRAME_WIDTH, SCALE).body is Body.NO_LEGS
    head = crop_around(tracklet(seen=0.1, hips=0.1, height=90), [], FRAME_WIDTH, SCALE)
    assert head.body is Body.HEAD_AND_SHOULDERS
    assert head.height_px == 200
    assert crop_around(tracklet(seen=0.1, height=260), [], FRAME_WIDTH, SCALE).height_px == 260, "never below the box"


def test_a_neighbor_is_cut_away_half_way() -> None:
    found = crop_around(tracklet(), [(400, 100, 480, 300), (10, 100, 60, 300)], FRAME_WIDTH, SCALE)
    assert found.is_cut
    assert (found.crop.first_x, found.crop.end_x) == (170, 380)
    far = crop_around(tracklet(), [(630, 100, 640, 300)], FRAME_WIDTH, SCALE)
    assert not far.is_cut
    overlapping = crop_around(tracklet(), [(290, 100, 370, 300)], FRAME_WIDTH, SCALE)
    assert overlapping.is_occluded
    assert overlapping.crop.first_x < overlapping.crop.end_x


def test_a_neighbor_above_or_below_cuts_nothing_away() -> None:
    """Such as in a grid of participants; the box of the tracklet is 280 to 360 pixels, 100 to 300."""
    below = crop_around(tracklet(), [(290, 310, 380, 480)], FRAME_WIDTH, SCALE)
    assert not below.is_cut
    assert not below.is_occluded
    assert (below.crop.first_x, below.crop.end_x) == (0, FRAME_WIDTH)


def test_whoever_is_mostly_behind_somebody_is_occluded() -> None:
    behind = crop_around(tracklet(), [(0, 150, 450, 480)], FRAME_WIDTH, SCALE)
    assert behind.is_occluded, "the half-way line to the neighbor leaves less than half of the person"


def test_a_frame_that_is_like_the_training_clips_is_the_crop() -> None:
    crop = crop_around(tracklet(), [], FRAME_WIDTH, SCALE).crop  # 320×400 around (320, 220)
    assert not is_framed_alike(crop, 640, 480), "a room"
    like_a_clip = crop._replace(left=10, top=-8)
    assert is_framed_alike(like_a_clip, 340, 380)
    assert not is_framed_alike(like_a_clip, 340, 250), "the person is much larger in it"


def test_edges_are_repeated_beyond_the_frame_and_the_middle() -> None:
    frame_HWC = np.arange(8, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    frame_HWC[0] += 100
    image = Crop(-2, -1, 8, 6, 0, 4).cut(frame_HWC)
    assert image.shape == (6, 8, 3)
    assert image[1, :, 0].tolist() == [100, 100, 100, 101, 102, 103, 103, 103]
    assert image[0].tolist() == image[1].tolist()
    assert image[4].tolist() == image[5].tolist()
    with pytest.raises(InvalidRegionError, match="shows nothing of the frame of 8×4"):
        Crop(20, 0, 4, 4, 0, 8).cut(frame_HWC)


def test_framing_takes_a_crop_as_it_takes_a_region() -> None:
    frame_HWC = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    crop = Crop(100, 20, 200, 240, 0, 640)
    whole = Framing(short_side=64, crop=56, region=crop).square(frame_HWC)
    np.testing.assert_array_equal(whole, Framing(short_side=64, crop=56).square(frame_HWC[20:260, 100:300]))
