import numpy as np
import pytest

from microaction.training.settings import RecipeConfig
from microaction.video.transforms import (
    ResizedCrop,
    center_crop,
    crop_offsets,
    draw_multi_scale_crop,
    draw_resized_crop,
    erase,
    jitter_colors,
    resize_short_side,
)


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
        crop = draw_multi_scale_crop(*ramp.shape[1:3], RecipeConfig().crop_scales, rng).of(ramp, 224)
        assert crop.shape == (2, 224, 224, 3)
        assert (crop[0] == crop[1]).all(), "one crop for all frames of a clip"
        columns, rows = crop[0, 0, :, 0].astype(int), crop[0, :, 0, 1].astype(int)
        flips += columns[0] > columns[-1]
        sizes.add((round(abs(columns[-1] - columns[0]) / 32), round(2 * (rows[-1] - rows[0]) / 32)))
    assert 110 < flips < 190
    # 256, 224, 192 and 168 pixels, width and height at most one step apart.
    assert sizes <= {(a, b) for a in (8, 7, 6, 5) for b in (8, 7, 6, 5) if abs(a - b) <= 1}
    assert len(sizes) >= 9


RESIZED = ResizedCrop((0.08, 1.0), (3 / 4, 4 / 3))


def coordinates(height: int = 40, width: int = 60) -> np.ndarray:
    """Return two equal frames whose red is the row and whose green is the column."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(height)[:, None], np.arange(width)
    return np.stack([frame, frame])


def test_resized_crops_have_the_asked_areas_and_shapes() -> None:
    frames, rng = coordinates(400, 600) // 4, np.random.default_rng(0)
    frames[..., 0], frames[..., 1] = np.arange(400)[:, None] // 4, np.arange(600) // 4
    areas, flips = [], 0
    for _ in range(300):
        crop = draw_resized_crop(frames.shape[1], frames.shape[2], RESIZED, rng).of(frames, 64)
        assert crop.shape == (2, 64, 64, 3)
        assert np.array_equal(crop[0], crop[1]), "all frames of a clip have the same crop"
        height = 4 * (int(crop[0, -1, 0, 0]) - int(crop[0, 0, 0, 0]))
        columns = crop[0, 0, :, 1].astype(int)
        width = 4 * abs(columns[-1] - columns[0])
        flips += columns[-1] < columns[0]
        areas.append(height * width / (400 * 600))
        assert 0.6 < width / height < 1.7
    assert 100 < flips < 200
    assert min(areas) < 0.15
    assert max(areas) > 0.6


def test_a_crop_that_never_fits_is_the_center_square() -> None:
    frames = coordinates()
    crop = draw_resized_crop(
        frames.shape[1], frames.shape[2], ResizedCrop((1.0, 1.0), (0.1, 0.11)), np.random.default_rng(1)
    ).of(frames, 40)
    columns = sorted({int(crop[0, 0, 0, 1]), int(crop[0, 0, -1, 1])})
    assert columns == [10, 49]


def test_colors_change_alike_in_all_frames() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    same = jitter_colors(np.stack([frames[0], frames[0]]), 0.4, np.random.default_rng(3))
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0], frames[0])
    assert np.array_equal(jitter_colors(frames, 0.0, rng), frames)
    first, again = (jitter_colors(frames, 0.4, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_quarter_of_the_clips_loses_a_rectangle() -> None:
    frames, rng = np.full((2, 50, 60, 3), 9, np.uint8), np.random.default_rng(0)
    areas = []
    for _ in range(400):
        erased = erase(frames, 0.2, (1, 2, 3), rng)
        is_erased = (erased == (1, 2, 3)).all(axis=-1)
        assert np.array_equal(is_erased[0], is_erased[1])
        areas.append(is_erased[0].mean())
    hit = np.array([area for area in areas if area])
    assert 60 < len(hit) < 140
    assert hit.max() <= 0.22
    assert (frames == 9).all(), "the clip itself is not changed"
