"""Clips with skeletons: which frames, keypoints and squares a network sees of them."""

from pathlib import Path

import numpy as np
import pytest

from microaction.clips.manifest import Clip
from microaction.clips.sample import Augmentation, Sampling, cropped_keypoints, decode_clip, load_clip
from microaction.clips.skeletons import ClipSkeletons
from microaction.preprocessing import Preprocessing
from microaction.skeletons import Skeleton, SkeletonError, read_skeletons, write_skeletons
from microaction.skeletons.preparation import crop_frames, crop_keypoints, people_box
from microaction.synthetic import SyntheticDataset, make_dataset
from microaction.synthetic.render import clip_keypoints
from microaction.video import Region, decode_frames
from microaction.video.sampling import bin_indices
from microaction.video.transforms import Crop, ResizedCrop

PEOPLE = Preprocessing(short_side=48, crop=40, test_side=48, fit="people", sampling="bins")
AUGMENTATION = Augmentation(0, 1, (), ResizedCrop((0.56, 1.0), (3 / 4, 4 / 3)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDataset:
    return make_dataset(
        tmp_path_factory.mktemp("drawn"),
        num_train_subjects=2,
        num_val_subjects=1,
        num_train_clips=4,
        num_val_clips=2,
        size=(96, 116),
        with_skeletons=True,
        num_processes=1,
    )


@pytest.fixture(scope="module")
def drawn(dataset: SyntheticDataset) -> tuple[str, Skeleton]:
    """The first clip, and its skeleton."""
    name, skeleton = next(read_skeletons(str(dataset.train_skeletons)))
    return str(dataset.train_dir / name), skeleton


def test_a_drawn_person_has_keypoints_like_a_detectors(dataset: SyntheticDataset, drawn: tuple[str, Skeleton]) -> None:
    assert [name for name, _ in read_skeletons(str(dataset.train_skeletons))] == [
        line.split()[0] for line in dataset.train_list.read_text().splitlines()
    ]
    path, skeleton = drawn
    assert skeleton.scores_MNK.shape[0] == 1
    assert len(decode_frames(path, range(skeleton.num_frames))) == skeleton.num_frames
    missed = skeleton.scores_MNK == 0
    assert 0.005 < missed.mean() < 0.3
    assert (skeleton.keypoints_MNK2[missed] == 0).all()
    still = clip_keypoints(subject_seed=1, action=0, seed=9, size=(96, 116))
    again = clip_keypoints(subject_seed=1, action=0, seed=9, size=(96, 116))
    np.testing.assert_array_equal(still.keypoints_MNK2, again.keypoints_MNK2)
    right, left = (still.keypoints_MNK2[0, :, keypoint, 0] for keypoint in (2, 5))
    both = (right > 0) & (left > 0)
    assert (right[both] < left[both]).all(), "the person's right is on the left of the image"


def test_testing_sees_the_square_around_the_sampled_keypoints(drawn: tuple[str, Skeleton]) -> None:
    path, skeleton = drawn
    sample = decode_clip(path, 0, Sampling(4, PEOPLE, num_pose_frames=16), skeleton=skeleton)
    num_frames = skeleton.num_frames
    pose, rgb = bin_indices(num_frames, 16), bin_indices(num_frames, 4)
    keypoints_MTK2 = skeleton.keypoints_MNK2[:, pose]
    box = people_box(keypoints_MTK2, 96, 116)
    np.testing.assert_array_equal(sample.frames_THWC, crop_frames(decode_frames(path, rgb.tolist()), box, 48))
    np.testing.assert_array_equal(sample.keypoints_MTK3[..., :2], crop_keypoints(keypoints_MTK2, box, 48))
    np.testing.assert_array_equal(sample.keypoints_MTK3[..., 2], skeleton.scores_MNK[:, pose])


def test_ten_views_share_one_square(drawn: tuple[str, Skeleton]) -> None:
    path, skeleton = drawn
    ten = PEOPLE.model_copy(update={"views": 10})
    sample = decode_clip(path, 0, Sampling(4, ten, num_pose_frames=16), skeleton=skeleton)
    assert sample.frames_THWC.shape == (40, 48, 48, 3)
    assert sample.keypoints_MTK3.shape == (1, 160, 28, 3)
    box = people_box(skeleton.keypoints_MNK2[:, bin_indices(skeleton.num_frames, 16, 10)], 96, 116)
    frames = decode_frames(path, bin_indices(skeleton.num_frames, 4, 10).tolist())
    np.testing.assert_array_equal(sample.frames_THWC, crop_frames(frames, box, 48))


def test_a_random_crop_moves_keypoints_with_the_pixels(drawn: tuple[str, Skeleton]) -> None:
    """A bright dot that is drawn at a keypoint is there in the crop too, mirrored or not."""
    path, skeleton = drawn
    dots = Skeleton(np.zeros_like(skeleton.keypoints_MNK2), np.zeros_like(skeleton.scores_MNK), 96, 116)
    dots.keypoints_MNK2[0, :, :3] = [[20, 30], [70, 90], [60, 40]]
    dots.scores_MNK[0, :, :3] = 1
    sampling = Sampling(2, PEOPLE, AUGMENTATION, num_pose_frames=8)
    for index in range(6):
        sample = load_clip(path, index, sampling, skeleton=dots)
        assert sample.frames_THWC.shape == (2, 40, 40, 3)
        assert sample.keypoints_MTK3.shape == (1, 8, 28, 3)
        np.testing.assert_array_equal(sample.frames_THWC, load_clip(path, index, sampling, skeleton=dots).frames_THWC)
    pixels = np.zeros((1, 50, 50, 3), np.uint8)
    pixels[0, 20:23, 10:13] = 255
    point = np.zeros((1, 1, 28, 3), np.float32)
    point[0, 0, 0] = 11, 21, 1
    for is_flipped in (False, True):
        crop = Crop(10, 5, 30, 25, is_flipped)
        cut = crop.of(pixels, 100)[0, :, :, 0]
        y, x = np.argwhere(cut > 200).mean(axis=0)
        found = cropped_keypoints(point, crop, 100)[0, 0]
        assert abs(found[0, 0] - x) < 3
        assert abs(found[0, 1] - y) < 3


def test_a_pose_network_decodes_no_more_than_the_size(drawn: tuple[str, Skeleton]) -> None:
    path, skeleton = drawn
    sample = decode_clip(path, 0, Sampling(0, PEOPLE, num_pose_frames=16), skeleton=skeleton)
    assert sample.frames_THWC.shape == (0, 48, 48, 3)
    assert sample.keypoints_MTK3.shape == (1, 16, 28, 3)


def test_tables_that_do_not_fit_the_list_are_refused(dataset: SyntheticDataset, tmp_path: Path) -> None:
    table = str(dataset.train_skeletons)
    names = [name for name, _ in read_skeletons(table)]
    clips = [Clip(name, f"/videos/{name}", 0) for name in names]
    found = ClipSkeletons.read((clips[:2], table))
    assert found.num_people == 1
    expected = dict(read_skeletons(table))
    for clip in clips[:2]:
        skeleton = Skeleton.from_bytes(found.packed(clip))
        np.testing.assert_array_equal(skeleton.keypoints_MNK2, expected[clip.name].keypoints_MNK2)
        np.testing.assert_array_equal(skeleton.scores_MNK, expected[clip.name].scores_MNK)
        assert (skeleton.width, skeleton.height) == (96, 116)
    with pytest.raises(SkeletonError, match=r"has no skeleton of 1 of 5 clips, the first of which is absent\.mp4"):
        ClipSkeletons.read(([*clips, Clip("absent.mp4", "/videos/absent.mp4", 0)], table))
    with pytest.raises(SkeletonError, match="is listed with a region"):
        ClipSkeletons.read(([Clip(names[0], "/a.mp4", 0, Region(0, 0, 9, 9))], table))
    with pytest.raises(SkeletonError, match="no table of skeletons at"):
        ClipSkeletons.read((clips, str(tmp_path / "absent.parquet")))
    write_skeletons(iter([]), str(tmp_path / "empty.parquet"))
    with pytest.raises(SkeletonError, match="has no skeleton of 4 of 4 clips"):
        ClipSkeletons.read((clips, str(tmp_path / "empty.parquet")))
