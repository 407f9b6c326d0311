"""Which parts of untrimmed videos a detector is trained on, and with which instances."""

from pathlib import Path

import numpy as np
import pytest

from microaction.clips.instances import AnnotatedVideo, Instance
from microaction.clips.manifest import ManifestError
from microaction.clips.steps import VideoFacts
from microaction.training.detection_data import (
    MIN_VISIBLE,
    ClipPlace,
    TrainingVideo,
    clip_places,
    draw_clip,
    rarest_labels,
    training_videos,
)
from microaction.training.settings import TrainSettings
from microaction.training.split import read_video_splits


def video_of(name: str, duration_s: float, *instances: tuple[int, float, float], start_s: float = 0.0) -> TrainingVideo:
    video = AnnotatedVideo(name, f"/v/{name}", tuple(Instance(*each) for each in instances))
    facts = {video.uri: VideoFacts("1", round(duration_s * 1e6), round(start_s * 1e6))}
    (found,) = training_videos([video], facts)
    return found


def test_instances_are_on_the_grid_of_the_track() -> None:
    found = video_of("a", 10, (3, 1.0, 2.5), (4, 9.0, 12.0), (5, 11.0, 12.0), start_s=0.5)
    # Step i speaks for i/8 to (i+1)/8 seconds after the track's start: grid position 8·t − 0.5.
    np.testing.assert_allclose(found.segments_N2, [[3.5, 15.5], [67.5, 79.5]])
    assert found.label_N.tolist() == [3, 4], "what begins after the end of the video is left out, the rest is cut"
    assert found.num_steps == 80


def test_unreadable_videos_are_left_out() -> None:
    video = AnnotatedVideo("a", "/v/a", (Instance(0, 0, 1),))
    assert training_videos([video], {"/v/a": VideoFacts("", 0, 0, "cut short")}) == []


def test_long_videos_have_several_places() -> None:
    videos = [video_of("a", 10, (0, 0, 1)), video_of("b", 40, (0, 0, 1))]
    assert clip_places(videos, 128) == [ClipPlace(0, 0, 1), ClipPlace(1, 0, 3), ClipPlace(1, 1, 3), ClipPlace(1, 2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_random_clips_keep_what_is_mostly_visible(seed: int) -> None:
    instances = [(number % 52, number * 1.0, number * 1.0 + 3) for number in range(57)]
    video = video_of("a", 60, *instances)
    places = clip_places([video], 128)
    rng = np.random.default_rng(seed)
    for place in places:
        clip = draw_clip(video, place, 128, rng)
        assert 0 <= clip.steps.start < clip.steps.stop <= video.num_steps
        assert 0.89 * 128 <= len(clip.steps) <= 128
        low, high = clip.steps.start - 0.5, clip.steps.stop - 0.5
        expected = [
            (label, max(start, low) - clip.steps.start, min(end, high) - clip.steps.start)
            for (start, end), label in zip(video.segments_N2.tolist(), video.label_N.tolist(), strict=True)
            if min(end, high) - max(start, low) >= MIN_VISIBLE * (end - start)
        ]
        kept = zip(clip.label_N[clip.is_kept_N].tolist(), clip.segments_N2[clip.is_kept_N].tolist(), strict=True)
        found = [(label, *span) for label, span in kept]
        assert found == expected


def test_long_postures_are_kept_where_they_fill_a_clip() -> None:
    video = video_of("a", 80, (5, 10, 70))
    clip = draw_clip(video, ClipPlace(0, 2, 5), 128, np.random.default_rng(0))
    assert clip.label_N.tolist() == [5]
    assert clip.is_kept_N.tolist() == [True]
    edge = draw_clip(video_of("b", 80, (5, 0, 33)), ClipPlace(0, 2, 5), 128, np.random.default_rng(3))
    assert edge.label_N.tolist() in ([], [5])
    assert not edge.is_kept_N.any(), "a short rest of it is no instance, but the dense probabilities learn it"


def test_all_of_a_long_video_is_drawn() -> None:
    video = video_of("a", 60, (0, 0, 1))
    drawn = [
        draw_clip(video, place, 128, np.random.default_rng(seed)).steps
        for seed in range(600)
        for place in clip_places([video], 128)
    ]
    assert {step for steps in drawn for step in steps} == set(range(480))


def test_clips_without_instances_are_clips() -> None:
    clip = draw_clip(video_of("a", 60, (0, 0, 1)), ClipPlace(0, 2, 4), 128, np.random.default_rng(0))
    assert clip.segments_N2.shape == (0, 2)
    assert clip.label_N.tolist() == []


def test_rarest_labels() -> None:
    videos = [
        video_of("a", 9, (1, 0, 1), (2, 0, 1)),
        video_of("b", 9, (1, 0, 1)),
        video_of("c", 9, (2, 0, 1), (7, 3, 4)),
    ]
    assert rarest_labels(videos).tolist() == [1, 1, 7]


def test_lists_of_several_people_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"video": "a.mp4", "start_s": 0.0, "end_s": 1.0, "action": 3, "person": person} for person in (1, 2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    fields = {"train_list": tmp_path / "list.parquet", "train_videos": tmp_path, "storage_path": tmp_path, "name": "x"}
    settings = TrainSettings.model_validate(
        {name: str(value) for name, value in fields.items()} | {"task": "detection", "split_by": "subject"}
    )
    with pytest.raises(ManifestError, match=r"a\.mp4 lists several people"):
        read_video_splits(settings)
