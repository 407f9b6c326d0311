import csv
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.skeletons import read_skeletons
from microaction.synthetic import (
    InterviewSpec,
    Subject,
    make_interview,
    make_interviews,
    plan_interview,
    write_interview_skeletons,
)
from microaction.synthetic.interview import interview_frames, interview_keypoints
from microaction.taxonomy import ACTIONS

SMALL = (64, 78)


@given(seed=st.integers(0, 2**31), duration_s=st.floats(0.1, 600.0), fps=st.sampled_from([10, 25, 30]))
def test_events_are_ordered_inside_the_video_and_on_frames(seed: int, duration_s: float, fps: int) -> None:
    end_s = 0.0
    for event in plan_interview(seed=seed, duration_s=duration_s, fps=fps):
        assert end_s <= event.start_s < event.end_s <= round(duration_s * fps) / fps
        assert (event.start_s * fps) == pytest.approx(round(event.start_s * fps))
        end_s = event.end_s


def test_every_action_occurs_before_any_repeats() -> None:
    events = plan_interview(seed=0, duration_s=600.0)
    assert {event.action for event in events[: len(ACTIONS)]} == set(range(len(ACTIONS)))
    assert {event.action for event in plan_interview(seed=0, duration_s=60.0, actions=[4, 7])} == {4, 7}


def test_an_interview_has_the_given_duration(tmp_path: Path) -> None:
    events = make_interview(tmp_path / "a.mp4", subject_seed=1, seed=2, duration_s=8.0, size=SMALL)
    assert events == plan_interview(seed=2, duration_s=8.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 240


def test_an_archive_comes_with_its_truth(tmp_path: Path) -> None:
    specs = [InterviewSpec(f"{i}.mp4", subject_seed=i, seed=i, duration_s=6.0) for i in range(2)]
    archive = make_interviews(tmp_path, specs, size=SMALL, num_processes=1)
    with archive.truth_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert archive.truth_csv == tmp_path / "truth.csv"
    assert [row["video"] for row in rows] == [name for name, events in archive.truth.items() for _ in events]
    assert all(ACTIONS[int(row["action_id"])] == row["action"] for row in rows)
    before = (tmp_path / "0.mp4").stat().st_mtime_ns
    assert make_interviews(tmp_path, specs, size=SMALL, num_processes=1) == archive
    assert (tmp_path / "0.mp4").stat().st_mtime_ns == before


def test_invalid_arguments_are_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"duration_s \(0\) must be positive"):
        plan_interview(seed=0, duration_s=0)
    with pytest.raises(ValueError, match=r"gap_s \(3.0, 1.0\) must be a minimum and a maximum"):
        plan_interview(seed=0, duration_s=9, gap_s=(3.0, 1.0))
    with pytest.raises(ValueError, match="actions must hold at least one action"):
        plan_interview(seed=0, duration_s=9, actions=[])
    with pytest.raises(ValueError, match="must be unique"):
        make_interviews("unused", [InterviewSpec("a.mp4", 0, 0, 1.0)] * 2)


@pytest.mark.parametrize("subject_seed", [1, 9000])
def test_wrists_are_where_frames_show_hands(subject_seed: int) -> None:
    """A pixel under a wrist that was found has the color of skin, in the frame of that number and not a few frames later."""
    how: dict[str, Any] = {"seed": 2, "duration_s": 8.0, "actions": [20, 25, 30, 35], "gap_s": (0.1, 0.2)}
    events, size = plan_interview(**how), (160, 192)
    drawn = interview_frames(events, subject_seed=subject_seed, seed=2, num_frames=240, size=size, fps=30)
    skeleton = interview_keypoints(subject_seed=subject_seed, size=size, **how)
    frames_NHWC = np.stack(list(drawn)).astype(float)
    assert skeleton.keypoints_MNK2.shape == (1, len(frames_NHWC), 28, 2)
    skin = np.array(Subject.from_seed(subject_seed).skin, float)

    def skin_ratio(delay: int) -> float:
        is_skin = []
        for n in range(len(frames_NHWC) - delay):
            for wrist in (4, 7):
                x, y = skeleton.keypoints_MNK2[0, n, wrist].astype(int)
                if skeleton.scores_MNK[0, n, wrist] > 0:
                    pixel = frames_NHWC[n + delay, y, x]
                    is_skin.append(pixel @ skin > 0.998 * np.linalg.norm(pixel) * np.linalg.norm(skin))
        return float(np.mean(is_skin))

    assert skin_ratio(delay=0) > 0.99
    assert skin_ratio(delay=5) < 0.95


def test_a_table_of_skeletons_is_that_of_the_interviews(tmp_path: Path) -> None:
    specs = [InterviewSpec(f"{i}.mp4", subject_seed=i, seed=i, duration_s=2.0) for i in range(2)]
    path = tmp_path / "skeletons.parquet"
    write_interview_skeletons(path, specs, size=SMALL)
    for spec, (name, skeleton) in zip(specs, read_skeletons(str(path)), strict=True):
        assert name == spec.name
        expected = interview_keypoints(subject_seed=spec.subject_seed, seed=spec.seed, duration_s=2.0, size=SMALL)
        np.testing.assert_array_equal(skeleton.keypoints_MNK2, expected.keypoints_MNK2)
        np.testing.assert_array_equal(skeleton.scores_MNK, expected.scores_MNK)
        assert (skeleton.width, skeleton.height) == SMALL
    written_ns = path.stat().st_mtime_ns
    write_interview_skeletons(path, specs, size=SMALL)
    assert path.stat().st_mtime_ns == written_ns
    write_interview_skeletons(path, specs[:1], size=SMALL)
    assert [name for name, _ in read_skeletons(str(path))] == ["0.mp4"]
