import csv
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microaction.synthetic import (
    InterviewSpec,
    TruthEvent,
    make_interview,
    make_interviews,
    plan_untrimmed,
)
from microaction.synthetic.interview import interview_keypoints
from microaction.synthetic.limbs import are_compatible, free_sides, limbs_of
from microaction.synthetic.mma52 import HABITS
from microaction.synthetic.render import draw_frames
from microaction.synthetic.scene import Shot, make_scene, side_by_side
from microaction.synthetic.untrimmed import MIN_LENGTH_S, perform
from microaction.taxonomy import ACTIONS, BODY_PART_OF

SMALL = (64, 78)
NUM_PLANNED = 3000


class Video(NamedTuple):
    """A planned video of MMA-52's durations."""

    duration_s: float
    events: list[TruthEvent]


@cache
def planned_videos(*, balanced: bool = False) -> list[Video]:
    durations_s = np.random.default_rng(0).integers(150, 451, NUM_PLANNED) / 30
    return [
        Video(duration_s, plan_untrimmed(seed=seed, duration_s=duration_s, balanced=balanced))
        for seed, duration_s in enumerate(durations_s.tolist())
    ]


def action(name: str) -> int:
    return ACTIONS.index(name)


def num_running(video: Video, fps: int = 30) -> np.ndarray:
    """Return the number of actions in each frame."""
    running = np.zeros(round(video.duration_s * fps), int)
    for event in video.events:
        running[round(event.start_s * fps) : round(event.end_s * fps)] += 1
    return running


def overlap(one: TruthEvent, other: TruthEvent) -> bool:
    return min(one.end_s, other.end_s) > max(one.start_s, other.start_s)


def overlapping_pairs(events: Sequence[TruthEvent]) -> list[tuple[TruthEvent, TruthEvent]]:
    return [(one, other) for i, one in enumerate(events) for other in events[:i] if overlap(one, other)]


# MMA-52's train split: 84.2, 32.3 and 4.2%; 3.02 instances; 86.4% overlap; 29.8% begin with frame 0; 14.8% span 90%.


def test_as_many_actions_run_at_once_as_in_mma52() -> None:
    running = np.concatenate([num_running(video) for video in planned_videos()])
    assert np.mean(running >= 1) == pytest.approx(0.84, abs=0.03)
    assert np.mean(running >= 2) == pytest.approx(0.32, abs=0.03)
    assert np.mean(running >= 3) == pytest.approx(0.04, abs=0.015)
    assert running.max() <= 5


def test_instances_are_as_long_as_in_mma52() -> None:
    lengths_s = [event.end_s - event.start_s for video in planned_videos() for event in video.events]
    quantiles_s = np.quantile(lengths_s, [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
    assert quantiles_s == pytest.approx([0.43, 0.86, 1.37, 2.59, 5.80, 10.5, 14.2], rel=0.15)


def test_videos_have_as_many_instances_as_in_mma52() -> None:
    numbers = [len(video.events) for video in planned_videos()]
    assert 2 == min(numbers) <= max(numbers) <= 10
    assert np.mean(numbers) == pytest.approx(3.02, abs=0.2)


def test_instances_are_cut_at_both_ends_as_in_mma52() -> None:
    events = [(event, video.duration_s) for video in planned_videos() for event in video.events]
    assert np.mean([event.start_s == 0 for event, _ in events]) == pytest.approx(0.30, abs=0.06)
    spans = [event.end_s - event.start_s >= 0.9 * duration_s for event, duration_s in events]
    assert np.mean(spans) == pytest.approx(0.145, abs=0.025)


def test_instances_overlap_others_as_in_mma52() -> None:
    pairs = [overlapping_pairs(video.events) for video in planned_videos()]
    overlapping = sum(len({id(event) for pair in of_video for event in pair}) for of_video in pairs)
    assert overlapping / sum(len(video.events) for video in planned_videos()) == pytest.approx(0.864, abs=0.03)
    parts = [(BODY_PART_OF[one.action], BODY_PART_OF[other.action]) for of_video in pairs for one, other in of_video]
    assert np.mean([one == other for one, other in parts]) == pytest.approx(0.09, abs=0.03)


def test_frequent_and_rare_actions_are_those_of_mma52() -> None:
    counts = Counter(event.action for video in planned_videos() for event in video.events)
    assert [ACTIONS[number] for number, _ in counts.most_common(2)] == ["turning head", "nodding"]
    for number, habit in HABITS.items():
        expected = habit.per_10_000 / 10_000 * counts.total()
        assert abs(counts[number] - expected) < 0.35 * expected + 3 * expected**0.5 + 1, ACTIONS[number]


def test_balanced_actions_are_about_equally_frequent() -> None:
    counts = Counter(event.action for video in planned_videos(balanced=True) for event in video.events)
    mean = counts.total() / len(ACTIONS)
    assert all(0.5 * mean < counts[number] < 1.6 * mean for number in range(len(ACTIONS)))


def test_gestures_are_short_and_postures_long() -> None:
    lengths_s: dict[int, list[float]] = {}
    for video in planned_videos(balanced=True):
        for event in video.events:
            lengths_s.setdefault(event.action, []).append(event.end_s - event.start_s)
    for name in ("retracting arms", "pushing glasses", "bowing head", "patting legs"):
        assert 0.6 < np.median(lengths_s[action(name)]) < 1.7, name
    for name in ("hands touching fingers", "shaking legs", "curling legs"):
        assert np.median(lengths_s[action(name)]) > 6, name


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    duration_s=st.floats(0.1, 300.0),
    fps=st.sampled_from([10, 25, 30]),
    actions=st.none() | st.lists(st.integers(0, 51), min_size=1, max_size=5),
)
def test_events_are_inside_the_video_and_on_frames(
    seed: int, duration_s: float, fps: int, actions: list[int] | None
) -> None:
    events = plan_untrimmed(seed=seed, duration_s=duration_s, fps=fps, actions=actions)
    assert events == plan_untrimmed(seed=seed, duration_s=duration_s, fps=fps, actions=actions)
    assert events == sorted(events, key=lambda event: event.start_s)
    num_frames = round(duration_s * fps)
    for event in events:
        assert 0 <= event.start_s < event.end_s <= num_frames / fps
        assert event.end_s - event.start_s > MIN_LENGTH_S - 1 / fps
        assert event.start_s * fps == pytest.approx(round(event.start_s * fps))
        assert actions is None or event.action in actions


@pytest.mark.parametrize("balanced", [False, True])
def test_what_runs_at_once_moves_different_limbs(balanced: bool) -> None:
    num_pairs = 0
    for seed, video in enumerate(planned_videos(balanced=balanced)[:500]):
        num_frames = round(video.duration_s * 30)
        _, performances, _, _ = perform(video.events, subject_seed=0, seed=seed, num_frames=num_frames, fps=30)
        assert [performance.action for performance in performances] == [event.action for event in video.events]
        for i, one in enumerate(performances):
            for other in performances[:i]:
                if min(one.end_s, other.end_s) > max(one.start_s, other.start_s):
                    num_pairs += 1
                    assert limbs_of(one.action, one.side).isdisjoint(limbs_of(other.action, other.side))
    assert num_pairs > 500


def test_limbs_follow_from_the_motions() -> None:
    nodding, neck, legs = action("nodding"), action("scratching or touching neck"), action("shaking legs")
    assert limbs_of(nodding, 1) == {"head_pitch"}
    assert limbs_of(neck, -1) == {"hand -1", "head_roll"}
    assert limbs_of(legs, 1) == {"leg +1", "leg -1"}
    assert all(are_compatible(*pair) for pair in ((nodding, neck), (neck, legs), (nodding, legs)))
    assert free_sides(action("waving"), limbs_of(neck, -1)) == (1,)
    assert not are_compatible(action("covering mouth"), neck)
    assert not are_compatible(nodding, action("bowing head"))
    assert not are_compatible(nodding, action("turning around"))
    assert not are_compatible(nodding, nodding)


def test_events_that_need_the_same_limb_are_refused() -> None:
    events = [TruthEvent(action("crossing arms"), 0.0, 3.0), TruthEvent(action("waving"), 1.0, 2.0)]
    with pytest.raises(ValueError, match=r"waving at 1.0 s needs a limb that moves already: crossing arms"):
        perform(events, subject_seed=0, seed=0, num_frames=90, fps=30)


def test_actions_at_once_are_all_visible() -> None:
    """Leaving out one of three actions changes the pixels of its part of the body."""
    together = [
        TruthEvent(action(name), 0.0, 2.0) for name in ("nodding", "scratching or touching neck", "shaking legs")
    ]

    def frames(events: Sequence[TruthEvent]) -> np.ndarray:
        subject, performances, _, rng = perform(together, subject_seed=3, seed=5, num_frames=60, fps=30)
        kept = [performance for performance in performances if performance.action in {event.action for event in events}]
        drawn = draw_frames(subject, kept, 60, rng, size=(160, 192), fps=30)
        return np.stack(list(drawn))[::6].astype(int)

    whole = frames(together)
    for left_out in together:
        changed = np.abs(whole - frames([event for event in together if event != left_out])).max(axis=-1) > 25
        assert np.median(changed.sum(axis=(1, 2))) > 60, ACTIONS[left_out.action]


def test_a_cut_action_is_under_way_at_the_cut() -> None:
    event = TruthEvent(action("crossing arms"), 0.0, 2.0)
    _, (performance,), _, _ = perform([event], subject_seed=0, seed=0, num_frames=60, fps=30)
    assert performance.weight(0.0) == performance.weight(59 / 30) == 1.0
    _, (whole,), _, _ = perform([TruthEvent(event.action, 0.1, 1.9)], subject_seed=0, seed=0, num_frames=60, fps=30)
    assert whole.weight(0.1) == whole.weight(1.9) == 0.0


def num_frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_interviews_can_have_overlapping_actions(tmp_path: Path) -> None:
    specs = [InterviewSpec("a.mp4", subject_seed=1, seed=2, duration_s=20.0, overlapping=True)]
    archive = make_interviews(tmp_path, specs, size=SMALL, fps=10, num_processes=1)
    assert archive.truth["a.mp4"] == plan_untrimmed(seed=2, duration_s=20.0, fps=10)
    assert overlapping_pairs(archive.truth["a.mp4"])
    assert num_frames_of(tmp_path / "a.mp4") == 200
    with archive.truth_csv.open(newline="") as file:
        rows = [(int(row["action_id"]), float(row["start_s"]), float(row["end_s"])) for row in csv.DictReader(file)]
    assert rows == [(event.action, event.start_s, event.end_s) for event in archive.truth["a.mp4"]]


def test_keypoints_of_an_overlapping_interview_are_those_of_its_frames(tmp_path: Path) -> None:
    one_at_a_time = interview_keypoints(subject_seed=1, seed=2, duration_s=4.0, size=SMALL)
    overlapping = interview_keypoints(subject_seed=1, seed=2, duration_s=4.0, size=SMALL, overlapping=True)
    assert overlapping.num_frames == one_at_a_time.num_frames == 120
    assert not np.array_equal(overlapping.keypoints_MNK2, one_at_a_time.keypoints_MNK2)
    events = make_interview(tmp_path / "a.mp4", subject_seed=1, seed=2, duration_s=4.0, size=SMALL, overlapping=True)
    assert events == plan_untrimmed(seed=2, duration_s=4.0)


def test_each_person_of_a_scene_has_overlapping_actions(tmp_path: Path) -> None:
    shots = [Shot(15.0, side_by_side(0, 1, 2))]
    truth = make_scene(
        tmp_path / "a.mp4", subject_seeds=[1, 2, 3], shots=shots, seed=4, size=(160, 90), fps=10, overlapping=True
    )
    assert [bool(overlapping_pairs(events)) for events in truth.events] == [True] * 3
    assert truth.events[0] != truth.events[1] != truth.events[2]
    assert num_frames_of(tmp_path / "a.mp4") == 150
