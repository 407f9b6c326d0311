"""Clips through Ray Data: their order, their pixels, and the errors of those that cannot be read."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.data import DataContext, ExecutionResources
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from microaction.clips.ingest import DECODE_CPUS, ClipBatch, read_clips
from microaction.clips.manifest import Clip
from microaction.clips.sample import Augmentation, Sampling, load_clip
from microaction.distributed.throttling import SCHEDULING_PAUSE_S
from microaction.preprocessing import Preprocessing
from microaction.video import DecodeError, Framing, Region, decode_frames, segment_indices
from tests.videos import number_of

PIXELS = Preprocessing(short_side=72, crop=64)
SCALES = (1.0, 0.875, 0.75, 0.66)
AS_IN_TESTING = Sampling(8, PIXELS)
IDLE_STEPS = 100


def gathered(batches: list[ClipBatch]) -> dict[int, np.ndarray]:
    return {int(i): clip for batch in batches for i, clip in zip(batch.index_B, batch.frames_BTHWC, strict=True)}


def test_clips_are_sampled_by_the_rule_of_the_reference(clips: list[Clip]) -> None:
    frames = load_clip(clips[7].uri, 7, AS_IN_TESTING).frames_THWC
    assert frames.shape == (8, 64, 64, 3)
    assert [number_of(frame) for frame in frames] == segment_indices(47).tolist()


def test_random_sampling_depends_only_on_seed_epoch_and_clip(clips: list[Clip]) -> None:
    def drawn(seed: int, epoch: int, index: int) -> bytes:
        return load_clip(
            clips[30].uri, index, Sampling(8, PIXELS, Augmentation(seed, epoch, SCALES))
        ).frames_THWC.tobytes()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({drawn(1, 2, 3), drawn(9, 2, 3), drawn(1, 9, 3), drawn(1, 2, 9)}) == 4


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_batches_follow_the_order_without_loss_or_repetition(clips: list[Clip]) -> None:
    order = np.random.default_rng(0).permutation(len(clips))
    batches = list(read_clips(clips, order, AS_IN_TESTING, 5))
    assert np.concatenate([batch.index_B for batch in batches]).tolist() == order.tolist()
    assert np.concatenate([batch.target_B for batch in batches]).tolist() == order.tolist()
    assert [len(batch.target_B) for batch in batches] == [5] * 7 + [2]
    for index, frames in gathered(batches).items():
        np.testing.assert_array_equal(frames, load_clip(clips[index].uri, index, AS_IN_TESTING).frames_THWC)


@pytest.fixture
def idle_times_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which Ray Data's scheduling loop ended its latest steps, as long as no task runs."""
    times_s: list[float] = []
    step = StreamingExecutor._scheduling_loop_step

    def recorded_step(executor: StreamingExecutor, topology: dict[Any, Any]) -> bool:
        continues = bool(step(executor, topology))
        if any(operator.num_active_tasks() for operator in topology):
            times_s.clear()
        times_s.append(time.monotonic())
        return continues

    monkeypatch.setattr(StreamingExecutor, "_scheduling_loop_step", recorded_step)
    return times_s


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_an_idle_pipeline_pauses_between_scheduling_steps(
    clips: list[Clip], idle_times_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pauses, the loop of a pipeline that waits for a slow consumer takes a whole core."""
    # As for pipelines beside training: less than a task needs, so that a block is decoded whenever none is left to give.
    limits = ExecutionResources(cpu=DECODE_CPUS / 2)
    monkeypatch.setattr(DataContext.get_current().execution_options, "resource_limits", limits)
    num_clips = 4 * len(clips)
    batches = read_clips(clips, np.arange(num_clips), AS_IN_TESTING, 5)
    next(batches)
    while len(times_s := idle_times_s[:IDLE_STEPS]) < IDLE_STEPS:
        time.sleep(0.1)
    assert times_s[-1] - times_s[0] >= (IDLE_STEPS - 1) * SCHEDULING_PAUSE_S
    assert sum(len(batch.target_B) for batch in batches) == num_clips - 5


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_only_the_region_of_a_clip_is_read(clips: list[Clip]) -> None:
    region = Region(0, 0, 36, 40)
    mixed = [replace(clip, region=region) if i % 2 else clip for i, clip in enumerate(clips[:6])]
    for sampling in (AS_IN_TESTING, Sampling(8, PIXELS, Augmentation(0, 0, SCALES))):
        seen = gathered(list(read_clips(mixed, np.arange(6), sampling, 3)))
        for index, clip in enumerate(clips[:6]):
            same = np.array_equal(seen[index], load_clip(clip.uri, index, sampling).frames_THWC)
            assert same == (index % 2 == 0)
    whole = decode_frames(clips[1].uri, segment_indices(41).tolist())
    expected = [Framing(72, 64).square(np.ascontiguousarray(frame[:40, :36])) for frame in whole]
    np.testing.assert_array_equal(load_clip(clips[1].uri, 1, AS_IN_TESTING, region).frames_THWC, np.stack(expected))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_sharding_changes_no_pixel_of_a_clip(clips: list[Clip]) -> None:
    sampling = Sampling(8, PIXELS, Augmentation(3, 1, SCALES))
    whole = gathered(list(read_clips(clips, np.arange(37), sampling, 8)))
    halves = [gathered(list(read_clips(clips, np.arange(rank, 37, 2), sampling, 3))) for rank in range(2)]
    for index, frames in (halves[0] | halves[1]).items():
        np.testing.assert_array_equal(frames, whole[index])


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_no_clips_give_no_batches() -> None:
    assert list(read_clips([], np.arange(0), AS_IN_TESTING, 4)) == []


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_an_unreadable_clip_raises_an_error_that_names_it(clips: list[Clip], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    with pytest.raises(DecodeError, match=r"bad\.mp4: not a video"):
        list(read_clips([*clips[:3], Clip("bad.mp4", str(bad), 0)], np.arange(4), AS_IN_TESTING, 4))
    with pytest.raises(DecodeError, match=r"absent\.mp4: no such file, though the list names it"):
        load_clip(str(tmp_path / "absent.mp4"), 0, AS_IN_TESTING)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_draw_beyond_the_last_clip_has_other_random_numbers(clips: list[Clip]) -> None:
    sampling = Sampling(8, PIXELS, Augmentation(3, 1, SCALES))
    (batch,) = read_clips(clips[:5], np.array([4, 9, 14]), sampling, 3)
    assert batch.index_B.tolist() == [4, 4, 4]
    assert batch.target_B.tolist() == [4, 4, 4]
    assert len({frames.tobytes() for frames in batch.frames_BTHWC}) == 3
    np.testing.assert_array_equal(batch.frames_BTHWC[1], load_clip(clips[4].uri, 9, sampling).frames_THWC)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_skipped_clips_leave_the_others_in_their_batches(clips: list[Clip], tmp_path: Path) -> None:
    absent = [Clip(f"{i}.mp4", str(tmp_path / f"{i}.mp4"), 0) for i in range(3)]
    outside = replace(clips[5], region=Region(0, 0, 1000, 10))
    mixed = [clips[0], absent[0], clips[2], absent[1], absent[2], outside, clips[6]]
    errors: list[DecodeError] = []
    batches = list(read_clips(mixed, np.arange(7), AS_IN_TESTING, 2, on_unreadable=errors.append))
    assert [batch.index_B.tolist() for batch in batches] == [[0], [2], [], [6]]
    assert [Path(error.uri).name for error in errors] == ["0.mp4", "1.mp4", "2.mp4", "5.mp4"]
    assert "does not lie inside the frame" in errors[3].reason
    np.testing.assert_array_equal(batches[1].frames_BTHWC[0], load_clip(clips[2].uri, 2, AS_IN_TESTING).frames_THWC)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_blocks_are_not_dropped_where_other_pipelines_may(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labeling lets Ray Data drop failed blocks, since its ledger finds them missing; nothing would find a missing clip."""
    monkeypatch.setattr(DataContext.get_current(), "max_errored_blocks", -1)
    missing = Clip("absent.mp4", str(tmp_path / "absent.mp4"), 0)
    with pytest.raises(DecodeError, match=r"absent\.mp4"):
        list(read_clips([*clips[:3], missing], np.arange(4), AS_IN_TESTING, 4))
