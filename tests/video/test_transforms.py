import numpy as np
import pytest

from microaction.training.settings import RecipeConfig
from microaction.video.transforms import center_crop, crop_offsets, multi_scale_crop, resize_short_side


def test_resizing_matches_the_references_sizes() -> None:
    assert resize_short_side(np.zeros((1296, 1080, 3), np.uint8), 256).shape == (307, 256, 3)
    assert resize_short_side(np.zeros((240, 426, 3), np.uint8), 256).shape == (256, 454, 3)


def test_resizing_is_bilinear() -> None:
    ramp = np.repeat(np.arange(0, 200, 10, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    half = resize_short_side(ramp, 10)
    assert half[0, :, 0].tolist() == [5 + 20 * i for i in range(10)]


def test_the_center_is_cropped() -> None:
    frames = np.arange(307 * 256).reshape(1, 307, 256, 1).repeat(3, axis=3)
    crop = center_crop(frames, 224)
    assert crop.shape == (1, 224, 224, 3)
    assert crop[0, 0, 0, 0] == 41 * 256 + 16
    with pytest.raises(ValueError, match=r"100×90 pixels are smaller than the crop \(224\)"):
        center_crop(np.zeros((1, 90, 100, 3), np.uint8), 224)


def test_all_13_crop_offsets_lie_inside_the_frame() -> None:
    offsets = crop_offsets(83, 32)
    assert len(offsets) == len(set(offsets)) == 13
    assert all(0 <= top <= 83 and 0 <= left <= 32 for top, left in offsets)
    assert {(0, 0), (80, 32), (40, 16), (20, 24)} <= set(offsets)


def test_training_crops_match_the_references_recipe() -> None:
    # Red encodes the column and green the row, so that a crop's pixels reveal its offset and size.
    ramp = np.zeros((2, 307, 256, 3), np.uint8)
    ramp[..., 0] = np.arange(256)[None, None, :]
    ramp[..., 1] = (np.arange(307) // 2)[None, :, None]
    rng = np.random.default_rng(0)
    sizes, flips = set(), 0
    for _ in range(300):
        crop = multi_scale_crop(ramp, 224, RecipeConfig().crop_scales, rng)
        assert crop.shape == (2, 224, 224, 3)
        assert (crop[0] == crop[1]).all(), "one crop for all frames of a clip"
        columns, rows = crop[0, 0, :, 0].astype(int), crop[0, :, 0, 1].astype(int)
        flips += columns[0] > columns[-1]
        sizes.add((round(abs(columns[-1] - columns[0]) / 32), round(2 * (rows[-1] - rows[0]) / 32)))
    assert 110 < flips < 190
    # 256, 224, 192 and 168 pixels, width and height at most one step apart.
    assert sizes <= {(a, b) for a in (8, 7, 6, 5) for b in (8, 7, 6, 5) if abs(a - b) <= 1}
    assert len(sizes) >= 9
