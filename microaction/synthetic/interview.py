"""Interviews: a person sits and performs micro-actions, one at a time or several at once; the truth says which and when."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microaction.skeletons import Skeleton
from microaction.synthetic.performance import Performance
from microaction.synthetic.render import (
    DEFAULT_FPS,
    DEFAULT_SIZE,
    check_size,
    checked_actions,
    draw_frames,
    drawn_keypoints,
    encode_video,
)
from microaction.synthetic.subject import Subject
from microaction.synthetic.tables import write_missing_skeletons
from microaction.synthetic.truth import TruthEvent, write_truth
from microaction.synthetic.untrimmed import perform, plan_untrimmed
from microaction.synthetic.workers import OnProgress, run_jobs

ACTION_S = (1.8, 3.2)  # duration of an action
GAP_S = (0.8, 4.0)  # time without an action between two
TRUTH_NAME = "truth.csv"
TRUTH_NAME = "truth.csv"


@dataclass(frozen=True)
class InterviewSpec:
    """One interview to render. `name` is its file name in the archive. `overlapping`: several actions at once, as in MMA-52."""

    name: str
    subject_seed: int
    seed: int
    duration_s: float
    actions: tuple[int, ...] | None = None
    overlapping: bool = False


@dataclass(frozen=True)
class SyntheticArchive:
    """The folder of the interviews, the events of each, and the file with the table of events."""

    root: Path
    truth: dict[str, list[TruthEvent]]
    truth_csv: Path


def plan_interview(
    *,
    seed: int,
    duration_s: float,
    fps: int = DEFAULT_FPS,
    actions: Sequence[int] | None = None,
    gap_s: tuple[float, float] = GAP_S,
) -> list[TruthEvent]:
    """Return the events of an interview, ordered by time, without overlap and inside the video.

    Actions are drawn from `actions` (default: all 52); none repeats before each has occurred once.
    """
    if duration_s <= 0:
        raise ValueError(f"duration_s ({duration_s}) must be positive")
    if not 0 <= gap_s[0] <= gap_s[1]:
        raise ValueError(f"gap_s {gap_s} must be a minimum and a maximum, at least 0; the default is {GAP_S}")
    choice = checked_actions(actions)
    rng = np.random.default_rng([seed, 0x1A])
    num_frames = round(duration_s * fps)
    events: list[TruthEvent] = []
    remaining: list[int] = []
    frame = 0
    while True:
        start_frame = frame + round(float(rng.uniform(*gap_s)) * fps)
        frame = start_frame + max(1, round(float(rng.uniform(*ACTION_S)) * fps))
        if frame > num_frames:
            return events
        if not remaining:
            remaining = [choice[index] for index in rng.permutation(len(choice))]
        events.append(TruthEvent(remaining.pop(), start_frame / fps, frame / fps))


def make_interview(  # noqa: PLR0913 - all are what an interview is
    path: str | os.PathLike[str],
    *,
    subject_seed: int,
    seed: int,
    duration_s: float,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    actions: Sequence[int] | None = None,
    gap_s: tuple[float, float] = GAP_S,
    overlapping: bool = False,
) -> list[TruthEvent]:
    """Render one interview and return its events. A file that exists already is kept.

    Events are those of `plan_interview`, or if `overlapping` those of `plan_untrimmed`, which has no use for `gap_s`.
    """
    check_size(size)
    events = planned(seed=seed, duration_s=duration_s, fps=fps, actions=actions, gap_s=gap_s, overlapping=overlapping)
    if not Path(path).exists():
        frames = interview_frames(
            events,
            subject_seed=subject_seed,
            seed=seed,
            num_frames=round(duration_s * fps),
            size=size,
            fps=fps,
            overlapping=overlapping,
        )
        encode_video(path, frames, size, fps)
    return events


def planned(
    *,
    seed: int,
    duration_s: float,
    fps: int,
    actions: Sequence[int] | None,
    gap_s: tuple[float, float] = GAP_S,
    overlapping: bool,
) -> list[TruthEvent]:
    """Return the events of an interview, one at a time or overlapping."""
    if overlapping:
        return plan_untrimmed(seed=seed, duration_s=duration_s, fps=fps, actions=actions)
    return plan_interview(seed=seed, duration_s=duration_s, fps=fps, actions=actions, gap_s=gap_s)


def interview_frames(
    events: Sequence[TruthEvent],
    *,
    subject_seed: int,
    seed: int,
    num_frames: int,
    size: tuple[int, int],
    fps: int,
    overlapping: bool = False,
) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] (uint8, RGB) of an interview with the given events."""
    return draw_frames(*_performed(events, subject_seed, seed, num_frames, fps, overlapping), size=size, fps=fps)


def _performed(
    events: Sequence[TruthEvent], subject_seed: int, seed: int, num_frames: int, fps: int, overlapping: bool
) -> tuple[Subject, list[Performance], int, np.random.Generator]:
    """Return the first arguments of `draw_frames` and `drawn_keypoints`."""
    if overlapping:
        return perform(events, subject_seed=subject_seed, seed=seed, num_frames=num_frames, fps=fps)
    rng = np.random.default_rng([seed, subject_seed, 0x1B])
    performances = [Performance.random(event.action, event.start_s, event.end_s, rng) for event in events]
    return Subject.from_seed(subject_seed), performances, num_frames, rng


def interview_keypoints(
    *,
    subject_seed: int,
    seed: int,
    duration_s: float,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    actions: Sequence[int] | None = None,
    gap_s: tuple[float, float] = GAP_S,
    overlapping: bool = False,
) -> Skeleton:
    """Return the keypoints in the interview that `make_interview` draws of the same arguments, with a detector's errors."""
    events = planned(seed=seed, duration_s=duration_s, fps=fps, actions=actions, gap_s=gap_s, overlapping=overlapping)
    performed = _performed(events, subject_seed, seed, round(duration_s * fps), fps, overlapping)
    return drawn_keypoints(*performed, size=size, fps=fps)


def make_interviews(
    root: str | os.PathLike[str],
    specs: Sequence[InterviewSpec],
    *,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    num_processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> SyntheticArchive:
    """Render the interviews that do not exist yet, in parallel, and write `<root>/truth.csv`.

    Its columns are video (the file name), action_id, action, start_s and end_s; its rows are ordered by video, as in `specs`,
    then by time. A file of the same name that another spec made is not detected: use one root per set of specs.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError(f"the names of the interviews {names} must be unique: each is a file in {root}")
    base = Path(root)
    base.mkdir(parents=True, exist_ok=True)
    truth = {
        spec.name: planned(
            seed=spec.seed,
            duration_s=spec.duration_s,
            fps=fps,
            actions=spec.actions,
            overlapping=spec.overlapping,
        )
        for spec in specs
    }
    jobs = [_InterviewJob(base / spec.name, spec, size, fps) for spec in specs if not (base / spec.name).exists()]
    run_jobs(_render, jobs, num_processes=num_processes, on_progress=on_progress)
    truth_csv = base / TRUTH_NAME
    write_truth(truth_csv, ("video",), (((name,), events) for name, events in truth.items()))
    return SyntheticArchive(base, truth, truth_csv)


def write_interview_skeletons(
    path: str | os.PathLike[str],
    specs: Sequence[InterviewSpec],
    *,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
) -> None:
    """Write the table of the skeletons of interviews (`schema.SKELETONS`), which names them as `specs` does.

    They are those of the frames that `make_interviews` draws of the same arguments, with a detector's errors; coordinates are
    pixels of these frames. A table that has just these names is kept.
    """

    def skeleton(spec: InterviewSpec) -> Skeleton:
        return interview_keypoints(
            subject_seed=spec.subject_seed,
            seed=spec.seed,
            duration_s=spec.duration_s,
            actions=spec.actions,
            overlapping=spec.overlapping,
            size=size,
            fps=fps,
        )

    write_missing_skeletons(Path(path), [spec.name for spec in specs], lambda: map(skeleton, specs))


@dataclass(frozen=True)
class _InterviewJob:
    path: Path
    spec: InterviewSpec
    size: tuple[int, int]
    fps: int


def _render(job: _InterviewJob) -> None:
    spec = job.spec
    make_interview(
        job.path,
        subject_seed=spec.subject_seed,
        seed=spec.seed,
        duration_s=spec.duration_s,
        actions=spec.actions,
        overlapping=spec.overlapping,
        size=job.size,
        fps=job.fps,
    )
