import csv
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.synthetic import InterviewSpec, make_interview, make_interviews, plan_interview
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
