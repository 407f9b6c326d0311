import cv2
import numpy as np
import pytest

from microaction.errors import InvalidRegionError
from microaction.preprocessing import Preprocessing
from microaction.video.framing import Framing, Region
from microaction.video.transforms import center_crop, resize_short_side

FRAME = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8), (0, 0), 3)


def test_cropping_matches_the_reference() -> None:
    square = Framing().square(FRAME)
    assert square.shape == (224, 224, 3)
    np.testing.assert_array_equal(square, center_crop(resize_short_side(FRAME, 256), 224))
    np.testing.assert_array_equal(Framing().whole(FRAME), resize_short_side(FRAME, 256))


@pytest.mark.parametrize("mean", [(123.675, 116.28, 103.53), (10.0, 20.0, 30.0)])
def test_padding_has_the_preprocessings_own_mean_color(mean: tuple[float, float, float]) -> None:
    preprocessing = Preprocessing(fit="pad", mean=mean)
    square = Framing.of(preprocessing).square(FRAME)
    assert square.shape == (224, 224, 3)
    height = round(300 * 224 / 500)
    top = (224 - height) // 2
    np.testing.assert_array_equal(square[top : top + height], cv2.resize(FRAME, (224, height)))
    for border in (square[:top], square[top + height :]):
        np.testing.assert_array_equal(border, np.broadcast_to([round(value) for value in mean], border.shape))
    whole = Framing.of(preprocessing).whole(FRAME)
    assert whole.shape == (256, 256, 3)
    np.testing.assert_array_equal(whole[0], np.broadcast_to([round(value) for value in mean], whole[0].shape))


def test_padding_works_for_tall_and_for_flat_frames() -> None:
    assert Framing(fit="pad").square(FRAME.transpose(1, 0, 2)).shape == (224, 224, 3)
    assert Framing(fit="pad").square(np.zeros((2, 900, 3), np.uint8)).shape == (224, 224, 3)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_region_is_framed_like_a_frame_of_its_own(fit: str) -> None:
    region = Region(left=40, top=20, width=260, height=240)
    inside = FRAME[20:260, 40:300]
    with_region, without = (
        Framing.of(Preprocessing.model_validate({"fit": fit, "short_side": 128, "crop": 112}), each)
        for each in (region, None)
    )
    np.testing.assert_array_equal(with_region.square(FRAME), without.square(np.ascontiguousarray(inside)))
    np.testing.assert_array_equal(with_region.whole(FRAME), without.whole(np.ascontiguousarray(inside)))


@pytest.mark.parametrize(
    "region", [(-1, 0, 10, 10), (0, 0, 501, 10), (490, 0, 11, 10), (0, 0, 10, 0), (0, 290, 10, 11)]
)
def test_a_region_outside_of_the_frame_is_refused(region: tuple[int, int, int, int]) -> None:
    framing = Framing(region=Region(*region))
    for act in (framing.square, framing.whole):
        with pytest.raises(InvalidRegionError, match=r"does not lie inside the frame of 500×300; correct region_left"):
            act(FRAME)
