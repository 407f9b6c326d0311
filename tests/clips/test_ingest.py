import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.data import DataContext

from microaction.clips.ingest import ClipBatch, read_clips
from microaction.clips.manifest import Clip
from microaction.clips.sample import Augmentation, Sampling, load_clip
from microaction.preprocessing import Preprocessing
from microaction.video import DecodeError, Framing, Region, decode_frames, segment_indices
from tests.videos import number_of

PIXELS = Preprocessing(short_side=72, crop=64)
SCALES = (1.0, 0.875, 0.75, 0.66)
AS_IN_TESTING = Sampling(8, PIXELS)


def gathered(batches: list[ClipBatch]) -> dict[int, np.ndarray]:
    return {int(i): clip for batch in batches for i, clip in zip(batch.index_B, batch.frames_BTHWC, strict=True)}


def test_a_clip_is_sampled_by_the_references_rule(clips: list[Clip]) -> None:
    frames = load_clip(clips[7].uri, 7, AS_IN_TESTING)
    assert frames.shape == (8, 64, 64, 3)
    assert [number_of(frame) for frame in frames] == segment_indices(47).tolist()


def test_random_sampling_depends_on_seed_epoch_and_clip_alone(clips: list[Clip]) -> None:
    def drawn(seed: int, epoch: int, index: int) -> bytes:
        return load_clip(clips[30].uri, index, Sampling(8, PIXELS, Augmentation(seed, epoch, SCALES))).tobytes()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({drawn(1, 2, 3), drawn(9, 2, 3), drawn(1, 9, 3), drawn(1, 2, 9)}) == 4


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_batches_come_in_the_order_asked_none_lost_none_twice(clips: list[Clip]) -> None:
    order = np.random.default_rng(0).permutation(len(clips))
    batches = list(read_clips(clips, order, AS_IN_TESTING, 5))
    assert np.concatenate([batch.index_B for batch in batches]).tolist() == order.tolist()
    assert np.concatenate([batch.target_B for batch in batches]).tolist() == order.tolist()
    assert [len(batch.target_B) for batch in batches] == [5] * 7 + [2]
    for index, frames in gathered(batches).items():
        np.testing.assert_array_equal(frames, load_clip(clips[index].uri, index, AS_IN_TESTING))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_slow_consumers_have_the_processor_for_themselves(clips: list[Clip]) -> None:
    num_clips = 20 * len(clips)
    num_pipelines = int(ray.cluster_resources()["CPU"]) + 1  # so that Ray Data has no whole CPU for any of them
    pipelines = [read_clips(clips, np.arange(num_clips), AS_IN_TESTING, 5) for _ in range(num_pipelines)]
    for batches in pipelines:
        next(batches)
    time.sleep(10)  # till all have looked at what the others have, and decoded what they may
    before_s = time.process_time()
    time.sleep(2)
    assert time.process_time() - before_s < 1.0, "a scheduling loop that turns without a pause takes a whole core"
    assert [sum(len(batch.target_B) for batch in batches) for batches in pipelines] == [num_clips - 5] * num_pipelines


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_region_is_all_that_is_seen_of_a_clip(clips: list[Clip]) -> None:
    region = Region(0, 0, 36, 40)
    mixed = [replace(clip, region=region) if i % 2 else clip for i, clip in enumerate(clips[:6])]
    for sampling in (AS_IN_TESTING, Sampling(8, PIXELS, Augmentation(0, 0, SCALES))):
        seen = gathered(list(read_clips(mixed, np.arange(6), sampling, 3)))
        for index, clip in enumerate(clips[:6]):
            same = np.array_equal(seen[index], load_clip(clip.uri, index, sampling))
            assert same == (index % 2 == 0)
    whole = decode_frames(clips[1].uri, segment_indices(41).tolist())
    expected = [Framing(72, 64).square(np.ascontiguousarray(frame[:40, :36])) for frame in whole]
    np.testing.assert_array_equal(load_clip(clips[1].uri, 1, AS_IN_TESTING, region), np.stack(expected))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_clips_pixels_are_the_same_whoever_reads_it(clips: list[Clip]) -> None:
    sampling = Sampling(8, PIXELS, Augmentation(3, 1, SCALES))
    whole = gathered(list(read_clips(clips, np.arange(37), sampling, 8)))
    halves = [gathered(list(read_clips(clips, np.arange(rank, 37, 2), sampling, 3))) for rank in range(2)]
    for index, frames in (halves[0] | halves[1]).items():
        np.testing.assert_array_equal(frames, whole[index])


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_no_clips_are_no_batches() -> None:
    assert list(read_clips([], np.arange(0), AS_IN_TESTING, 4)) == []


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_clip_that_cannot_be_read_is_an_error_with_its_name(clips: list[Clip], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    with pytest.raises(DecodeError, match=r"bad\.mp4: not a video"):
        list(read_clips([*clips[:3], Clip("bad.mp4", str(bad), 0)], np.arange(4), AS_IN_TESTING, 4))
    with pytest.raises(DecodeError, match=r"absent\.mp4: no such file, though the list names it"):
        load_clip(str(tmp_path / "absent.mp4"), 0, AS_IN_TESTING)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_place_beyond_the_last_is_a_clip_again_with_other_random_numbers(clips: list[Clip]) -> None:
    sampling = Sampling(8, PIXELS, Augmentation(3, 1, SCALES))
    (batch,) = read_clips(clips[:5], np.array([4, 9, 14]), sampling, 3)
    assert batch.index_B.tolist() == [4, 4, 4]
    assert batch.target_B.tolist() == [4, 4, 4]
    assert len({frames.tobytes() for frames in batch.frames_BTHWC}) == 3
    np.testing.assert_array_equal(batch.frames_BTHWC[1], load_clip(clips[4].uri, 9, sampling))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_clips_that_cannot_be_read_may_be_left_out_and_move_no_other(clips: list[Clip], tmp_path: Path) -> None:
    absent = [Clip(f"{i}.mp4", str(tmp_path / f"{i}.mp4"), 0) for i in range(3)]
    outside = replace(clips[5], region=Region(0, 0, 1000, 10))
    mixed = [clips[0], absent[0], clips[2], absent[1], absent[2], outside, clips[6]]
    errors: list[DecodeError] = []
    batches = list(read_clips(mixed, np.arange(7), AS_IN_TESTING, 2, on_unreadable=errors.append))
    assert [batch.index_B.tolist() for batch in batches] == [[0], [2], [], [6]]
    assert [Path(error.uri).name for error in errors] == ["0.mp4", "1.mp4", "2.mp4", "5.mp4"]
    assert "does not lie inside the frame" in errors[3].reason
    np.testing.assert_array_equal(batches[1].frames_BTHWC[0], load_clip(clips[2].uri, 2, AS_IN_TESTING))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_what_other_pipelines_may_lose_this_one_may_not(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelling lets Ray Data drop failed blocks, as its ledger finds them missing; nothing would find a clip missing."""
    monkeypatch.setattr(DataContext.get_current(), "max_errored_blocks", -1)
    missing = Clip("absent.mp4", str(tmp_path / "absent.mp4"), 0)
    with pytest.raises(DecodeError, match=r"absent\.mp4"):
        list(read_clips([*clips[:3], missing], np.arange(4), AS_IN_TESTING, 4))
