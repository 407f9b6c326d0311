"""What PCAN sees of a clip: frames, the square around the people, heatmaps."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microaction.models.heatmaps import Heat, draw_heatmaps
from microaction.skeletons.preparation import (
    FLIP_PAIRS,
    Box,
    crop_frames,
    crop_keypoints,
    flipped,
    people_box,
    scaled_keypoints,
)
from microaction.video.sampling import bin_indices
from tests.skeletons.plain import heatmaps

COUNTS, LENGTHS = st.integers(1, 400), st.sampled_from([8, 32])


@given(COUNTS, LENGTHS, st.integers(0, 2**32))
def test_frames_are_drawn_by_the_rule(n: int, T: int, seed: int) -> None:
    for indices in (bin_indices(n, T, rng=np.random.default_rng(seed)), bin_indices(n, T)):
        assert len(indices) == T
        assert 0 <= indices.min() <= indices.max() < n
        if n < T:
            assert (np.diff(indices) % n == 1 % n).all(), "in a row, and around"
        else:
            assert (np.diff(indices) >= 1).all()
        if n >= 2 * T:
            assert all(j * n // T <= index < (j + 1) * n // T for j, index in enumerate(indices))


def test_clips_of_a_test_differ_and_depend_on_the_numbers_alone() -> None:
    clips = bin_indices(61, 8, 10).reshape(10, 8)
    assert len({tuple(clip) for clip in clips.tolist()}) > 5
    assert np.array_equal(clips, bin_indices(61, 8, 10).reshape(10, 8))
    assert np.array_equal(clips[0], bin_indices(61, 8, 1))
    starts = bin_indices(5, 8, 10).reshape(10, 8)[:, 0]
    assert starts.tolist() == [clip % 5 for clip in range(10)], "clip i starts at frame i of a very short one"


def test_the_box_is_a_square_around_what_was_found() -> None:
    keypoints = np.zeros((2, 3, 28, 2), np.float32)
    assert people_box(keypoints, 100, 80) == Box(0, 0, 100, 80), "nothing was found"
    keypoints[0, 0, 0], keypoints[1, 2, 5] = (40, 30), (60, 70)
    assert people_box(keypoints, 100, 80) == Box(25, 25, 75, 75)
    keypoints[1, 2, 5] = (45, 70)
    assert people_box(keypoints, 100, 80) == Box(0, 0, 100, 80), "less than 10 pixels wide"
    keypoints[1, 2, 5] = (90, 79)
    assert people_box(keypoints, 100, 80) == Box(33, 23, 96, 85)


def test_boxes_beyond_the_frame_are_black() -> None:
    frames = np.full((2, 20, 30, 3), 200, np.uint8)
    crop = crop_frames(frames, Box(-10, -5, 30, 35), 40)
    assert crop.shape == (2, 40, 40, 3)
    assert (crop[:, 6:24, 12:38] == 200).all()
    assert (crop[:, :4] == 0).all()
    assert (crop[:, :, :9] == 0).all()
    assert (crop[:, 26:] == 0).all()


def test_keypoints_move_with_the_crop_and_missing_ones_stay() -> None:
    keypoints = np.array([[10, 20], [0, 0], [30, 0]], np.float32)
    moved = crop_keypoints(keypoints, Box(-10, 10, 30, 50), 80)
    assert moved.tolist() == [[40, 20], [0, 0], [80, 0]]
    assert keypoints[0].tolist() == [10, 20], "the input is not changed"
    assert scaled_keypoints(keypoints, (100, 50), (200, 25)).tolist() == [[20, 10], [0, 0], [60, 0]]


def test_a_flip_exchanges_sides_but_not_hands() -> None:
    keypoints = np.arange(56, dtype=np.float32).reshape(28, 2) + 1
    keypoints[5] = 0
    mirrored, scores = flipped(keypoints, np.arange(28.0), 100)
    assert mirrored[2].tolist() == [0, 0]
    assert mirrored[5].tolist() == [100 - keypoints[2, 0], keypoints[2, 1]]
    exchanged = {index for pair in FLIP_PAIRS for index in pair}
    for point in range(28):
        if point not in exchanged:
            assert mirrored[point, 0] == 100 - keypoints[point, 0]
            assert scores[point] == point
    assert scores[[3, 6]].tolist() == [6, 3]


def test_heat_is_the_scored_gaussian_of_the_nearest_person() -> None:
    keypoints = np.zeros((2, 1, 2, 2), np.float32)
    keypoints[0, 0, 0], keypoints[1, 0, 0], keypoints[0, 0, 1] = (40, 20), (48, 20), (400, 20)
    scores = np.array([[[0.8, 0.9]], [[0.5, 0.00001]]], np.float32)
    heat = heatmaps(keypoints, scores, 56)
    assert heat.shape == (1, 2, 56, 56)
    assert heat[0, 0, 5, 10] == np.float32(0.8)
    assert heat[0, 0, 5, 12] == np.float32(0.5)
    assert heat[0, 0, 6, 10] == pytest.approx(0.8 * np.exp(-1 / 0.98))
    assert heat[0, 0, 5, 11] == pytest.approx(0.8 * np.exp(-1 / 0.98))
    assert (heat[0, 0, :, :7] == 0).all(), "the heat ends at three sigmas"
    assert (heat[0, 1] == 0).all(), "outside of the frame"


def frame(t: int) -> np.ndarray:
    """Return frame t of the video that the records were made of [216, 260, 3]."""
    y, x = np.mgrid[0:216, 0:260].astype(np.float64)
    c = np.arange(3)
    wave = np.sin(x[..., None] / (9 + 2 * c) + 0.3 * t), np.cos(y[..., None] / (11 + 3 * c) - 0.2 * t * (c + 1))
    pixels: np.ndarray = np.clip(np.rint(127.5 + 60 * wave[0] + 60 * wave[1]), 0, 255).astype(np.uint8)
    return pixels


def test_frames_and_heatmaps_are_the_references_bit_for_bit(shared: Path) -> None:
    records = np.load(shared / "data/parity/pcan_parity.npz")
    for name in records:
        if name.startswith("pose.sampling.") and name != "pose.sampling.num_frames":
            _, _, kind, num_clips, num_frames = name.split(".")
            indices = bin_indices(int(num_frames), 8 if kind == "RGB" else 32, int(num_clips))
            assert np.array_equal(indices, records[name]), name
    keypoints = np.nan_to_num(records["pose.annotation.keypoint"])
    keypoints = scaled_keypoints(keypoints, (1296, 1080), (260, 216))
    scores = records["pose.annotation.score"]
    pose, rgb = records["pose.train0.pose_indices"], records["pose.train0.rgb_indices"]
    box = people_box(keypoints[:, pose], 260, 216)
    frames = crop_frames(np.stack([frame(t) for t in rgb]), box, 256)
    left, top, right, bottom = records["pose.train0.crop_bbox"]
    found = [cv2.resize(np.ascontiguousarray(each[top:bottom, left:right]), (224, 224)) for each in frames]
    if records["pose.train0.flip"]:
        found = [each[:, ::-1] for each in found]
        scores = flipped(keypoints, scores, 224)[1]
    expected = records["pose.train0.rgb_frames"].transpose(1, 2, 3, 0)
    assert np.array_equal(np.stack([found[0], found[7]]), expected)
    heat = heatmaps(records["pose.train0.keypoint"][None], scores[:, pose], 56)
    assert np.array_equal(heat.transpose(1, 0, 2, 3), records["pose.train0.heat"])
    pose = bin_indices(61, 32)
    box = people_box(keypoints[:, pose], 260, 216)
    heat = heatmaps(crop_keypoints(keypoints[:, pose], box, 256), records["pose.annotation.score"][:, pose], 64)
    np.testing.assert_allclose(heat.sum(axis=(0, 2, 3)), records["pose.val.heat_sums"][0], rtol=1e-6)


@pytest.mark.parametrize(("heat", "side"), [(Heat(0.25, 0.7), 224), (Heat(1.0, 0.6), 56)])
def test_heat_drawn_on_the_device_is_the_same(heat: Heat, side: int) -> None:
    rng = np.random.default_rng(3)
    keypoints = rng.uniform(-10, side + 10, (2, 3, 4, 28, 3)).astype(np.float32)  # clips, people, frames
    keypoints[..., 2] = rng.uniform(-0.2, 1, keypoints.shape[:-1])
    keypoints[0, 0, 0, :, :2] = 0
    maps = draw_heatmaps(torch.from_numpy(keypoints), side, heat).numpy()
    assert maps.shape == (2, 4, 28, 56, 56)
    for clip in range(2):
        expected = heatmaps(keypoints[clip, ..., :2], keypoints[clip, ..., 2], 56, heat.scale, heat.sigma)
        np.testing.assert_allclose(maps[clip], expected, rtol=0, atol=1e-6)
        assert expected.max() > 0.5
