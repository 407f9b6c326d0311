"""Clips of several people: who counts, and that packing and training cut them alike, once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.clips.pack import pack_clips
from microaction.clips.people import part_of_clip
from microaction.clips.sample import Augmentation, Sampling, decode_clip
from microaction.clips.settings import PackSettings
from microaction.errors import DecodeError, FailureKind, InvalidRegionError
from microaction.preprocessing import PersonScale, Preprocessing
from microaction.video import Framing, Region, decode_frames, probe
from microaction.video.framing import Crop
from tests.people.scenes import draw_clip

SCALE = PersonScale(height=0.8)
PIXELS = Preprocessing(short_side=72, crop=64, person=SCALE)
REGION = Region(200, 0, 100, 120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of one person and a clip of two, of whom the left one is taller."""
    folder = tmp_path_factory.mktemp("people")
    draw_clip(folder / "one.mp4", 3)
    draw_clip(folder / "two.mp4", 3, 11)
    return folder


def test_of_several_people_one_counts(folder: Path) -> None:
    one, two = (str(folder / name) for name in ("one.mp4", "two.mp4"))
    crops = [part_of_clip(two, None, person, SCALE) for person in (1, 2, None)]
    left, right, chosen = crops
    assert isinstance(left, Crop)
    assert isinstance(right, Crop)
    assert chosen == left, "the tallest"
    assert (left.first_x, left.end_x) == (0, right.first_x)
    assert 140 < right.first_x < 180
    assert right.end_x == 320
    assert part_of_clip(one, None, None, SCALE) is None
    assert part_of_clip(one, None, 1, SCALE) is None
    with pytest.raises(InvalidRegionError, match="the list names person 3, but the clip's middle frame shows 2"):
        part_of_clip(two, None, 3, SCALE)


def test_a_region_comes_first(folder: Path) -> None:
    assert part_of_clip(str(folder / "two.mp4"), REGION, 2, SCALE) == REGION


@pytest.mark.parametrize("augmentation", [None, Augmentation(0, 0, (1.0,))])
def test_a_network_sees_the_crop_of_one_person(folder: Path, augmentation: Augmentation | None) -> None:
    clip = str(folder / "two.mp4")
    off = Sampling(2, PIXELS, augmentation)
    auto = replace(off, people="auto")
    seen = decode_clip(clip, 0, auto, person=2).frames_THWC
    assert not np.array_equal(seen, decode_clip(clip, 0, off).frames_THWC)
    np.testing.assert_array_equal(
        decode_clip(clip, 0, auto, REGION).frames_THWC, decode_clip(clip, 0, off, REGION).frames_THWC
    )
    if augmentation is None:
        framing = Framing.of(PIXELS, part_of_clip(clip, None, 2, SCALE))
        np.testing.assert_array_equal(seen, decode_frames(clip, [1, 3], transform=framing.square))


@pytest.mark.parametrize("part", [None, REGION, Crop(200, 40, 120, 200, 160, 320)])
def test_the_part_moves_at_random(folder: Path, part: Region | Crop | None) -> None:
    """A part is shown at other places and sizes in each epoch, within the limits, and never what lies beside its columns."""
    clip, widths, shifts = (folder / "two.mp4").read_bytes(), [], []
    size = probe(clip).width, probe(clip).height
    whole = Crop.of(part, *size)
    for epoch in range(200):
        augmentation = Augmentation(0, epoch, (1.0,), part_shift=0.1, part_scale=0.25)
        moved = augmentation.part(part, *size, np.random.default_rng(epoch))
        assert isinstance(moved, Crop)
        assert (moved.first_x, moved.end_x) == (whole.first_x, whole.end_x)
        widths.append(moved.width / whole.width)
        center = np.array([moved.left + moved.width / 2, moved.top + moved.height / 2])
        shifts.append(
            (center - [whole.left + whole.width / 2, whole.top + whole.height / 2]) / [whole.width, whole.height]
        )
    assert 0.79 < min(widths) < 0.83
    assert 1.2 < max(widths) < 1.26
    assert np.abs(shifts).max() < 0.11
    assert np.abs(shifts).max(axis=0).min() > 0.09


def test_a_part_that_moves_is_read_the_same_again(folder: Path) -> None:
    clip = str(folder / "two.mp4")
    still, moving = (Augmentation(0, 3, (1.0,), part_shift=shift, part_scale=shift) for shift in (0.0, 0.2))
    first, again, unmoved = (
        decode_clip(clip, 5, Sampling(2, PIXELS, augmentation), REGION).frames_THWC
        for augmentation in (moving, moving, still)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, unmoved)


def test_the_person_is_in_its_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a.mp4", "b.mp4"], "label": [1, 2], "person": [None, 2.0]})
    table.to_parquet(tmp_path / "list.parquet")
    listed = read_list(str(tmp_path / "list.parquet"), "videos", 52)
    assert listed == [Clip("a.mp4", "videos/a.mp4", 1), Clip("b.mp4", "videos/b.mp4", 2, person=2)]
    for wrong in (0.0, 1.5, "left"):
        table.assign(person=wrong).to_parquet(tmp_path / "list.parquet")
        with pytest.raises(ManifestError, match=rf"row 1: person \({wrong}\) must be a whole number"):
            read_list(str(tmp_path / "list.parquet"), "videos", 52)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_clips_are_read_with_the_person_whom_the_list_names(folder: Path) -> None:
    two, sampling = str(folder / "two.mp4"), Sampling(2, PIXELS, people="auto")
    clips = [Clip("two", two, 0), Clip("right", two, 0, person=2), Clip("third", two, 0, person=3)]
    clips.append(Clip("region", two, 0, REGION, person=3))
    errors: list[DecodeError] = []
    (batch,) = read_clips(clips, np.arange(4), sampling, 4, on_unreadable=errors.append)
    assert [error.reason for error in errors] == [
        "the list names person 3, but the clip's middle frame shows 2: correct person, or give a region"
    ]
    for index, frames_THWC in zip(batch.index_B.tolist(), batch.frames_BTHWC, strict=True):
        clip = clips[index]
        expected = decode_clip(two, index, sampling, clip.region, person=clip.person)
        np.testing.assert_array_equal(frames_THWC, expected.frames_THWC)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_proxies_show_the_person_whom_the_list_names(folder: Path, tmp_path: Path) -> None:
    two = str(folder / "two.mp4")
    region = dict(zip(("region_left", "region_top", "region_width", "region_height"), REGION, strict=True))
    rows: list[dict[str, object]] = [
        {"name": "one.mp4", "uri": str(folder / "one.mp4")},
        {"name": "tallest.mp4", "uri": two},
        {"name": "right.mp4", "uri": two, "person": 2},
        {"name": "third.mp4", "uri": two, "person": 3},
        {"name": "region.mp4", "uri": two, "person": 2, **region},
    ]
    pd.DataFrame([row | {"label": 1} for row in rows]).to_parquet(tmp_path / "list.parquet")
    settings = PackSettings(
        clips_list=f"{tmp_path}/list.parquet",
        videos=str(folder),
        out=f"{tmp_path}/out",
        short_side=96,
        people="auto",
        person=SCALE,
    )
    packed = pack_clips(settings)
    assert packed.num_cut == 2
    (failure,) = packed.failures
    assert (failure["name"], failure["error"]) == ("third.mp4", FailureKind.INVALID_REGION)
    manifest = pd.read_parquet(tmp_path / "out/manifest.parquet").set_index("name")
    for name, person in (("tallest.mp4", None), ("right.mp4", 2)):
        part = part_of_clip(two, None, person, SCALE)
        assert isinstance(part, Crop)
        crops = manifest[["crop_left", "crop_top", "crop_width", "crop_height"]]
        assert crops.loc[[name]].to_numpy().tolist() == [list(part[:4])]
        proxy = decode_frames(f"{tmp_path}/out/videos/{name}", [2])[0].astype(int)
        expected = decode_frames(two, [2], transform=Framing(96, region=part).whole)[0]
        assert np.abs(proxy - expected).mean() < 3
    info = probe(f"{tmp_path}/out/videos/region.mp4")
    assert (info.width, info.height) == (96, 115)

    # Training that looks for people too takes proxies as they are.
    proxies = read_list(f"{tmp_path}/out/list.parquet", f"{tmp_path}/out/videos", 52)
    for clip in proxies:
        info = probe(clip.uri)
        assert clip.region == Region(0, 0, info.width, info.height)
        assert clip.person is None

    assert pack_clips(settings).num_packed_before == 4
    with pytest.raises(ManifestError, match=r"right\.mp4 is listed with person 2, but people is off"):
        pack_clips(settings.model_copy(update={"people": "off"}))
