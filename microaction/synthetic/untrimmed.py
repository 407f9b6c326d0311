"""Untrimmed videos with several actions at once, which follow MMA-52's statistics: each is cut out of a longer timeline.

Actions begin at random, the less often the more of them run, and each lasts as long as its kind does. Those that run at the
same time move different limbs, so that all of them are visible. A video is a window of this timeline: what runs at its first
or last frame is cut there, as in MMA-52.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from microaction.synthetic.limbs import are_compatible, free_sides, limbs_of
from microaction.synthetic.mma52 import HABITS
from microaction.synthetic.motions import GLASSES_ACTION
from microaction.synthetic.performance import Performance
from microaction.synthetic.render import DEFAULT_FPS, checked_actions
from microaction.synthetic.subject import Subject
from microaction.synthetic.truth import TruthEvent
from microaction.taxonomy import ACTIONS

# Starts per mean length of an action while 0, 1, … run, and none while 5 do. Where lengths do not depend on what runs, the
# times with n and n - 1 actions have the ratio STARTS[n - 1] / n: 24, 54, 18, 3 and 0.4% of the time have 0 to 4 actions.
# Videos of 5 to 15 s have more, since those without an overlap are not shown.
STARTS = (2.2, 0.68, 0.5, 0.5, 0.3)
LENGTH_SPREAD = 0.75  # standard deviation of the natural logarithm of lengths
MIN_LENGTH_S = 0.27  # the shortest instance of MMA-52
MIN_CUT_S = 0.7  # a video leaves out an action of which its ends show less
MAX_LENGTH_S = 60.0
WARM_UP_S = 60.0  # of the timeline before a video begins, so that long actions run at its first frame as often as later
REPEAT_AFTER_S = 1.0  # the same action again sooner would look like one
MAX_ATTEMPTS = 50  # to find a window with an overlap; very short ones, and actions that need the same limb, have none
BEYOND_S = 1.0  # how much longer an action lasts that is cut: more than it takes to begin or to end
TYPICAL_DURATION_S = 10.0  # of MMA-52's videos
FITTING_STEPS = 30
# Windows with an overlap show actions that fit beside others more often. Measured: by this power of the time in which they fit.
OVERLAP_PREFERENCE = 0.45


@dataclass(frozen=True)
class _Running:
    action: int
    side: int
    start_s: float
    end_s: float


def plan_untrimmed(
    *,
    seed: int,
    duration_s: float,
    fps: int = DEFAULT_FPS,
    actions: Sequence[int] | None = None,
    balanced: bool = False,
) -> list[TruthEvent]:
    """Return the events of a video, ordered by their start; at most five at once, which move different limbs.

    Videos of 5 to 15 s have about MMA-52's statistics: how many actions of which lengths, and each action as often as there.
    With `balanced` each is about as often as the others. Actions are drawn from `actions` (default: all 52). An event that
    begins at 0 s or ends at the end of the video is cut there. Raises `ValueError` for a duration that is not positive, and
    for actions that do not exist.
    """
    if duration_s <= 0:
        raise ValueError(f"duration_s ({duration_s}) must be positive")
    starts = _starts(checked_actions(actions), balanced)
    rng = np.random.default_rng([seed, 0x1D])
    num_frames = round(duration_s * fps)
    for _ in range(MAX_ATTEMPTS):
        events = _window(_timeline(starts, duration_s, rng), num_frames, fps)
        if _overlap(events):
            break
    return events


def perform(
    events: Sequence[TruthEvent], *, subject_seed: int, seed: int, num_frames: int, fps: int
) -> tuple[Subject, list[Performance], int, np.random.Generator]:
    """Return the first arguments of `draw_frames` and `drawn_keypoints`; events must be ordered by their start.

    Each event is on a side that is free. Those at the first or last frame last longer than the video. Raises
    `ValueError` for events at the same time that need the same limb.
    """
    rng = np.random.default_rng([seed, subject_seed, 0x1E])
    performances: list[Performance] = []
    for event in events:
        start_s = event.start_s if event.start_s > 0 else -BEYOND_S
        end_s = event.end_s if round(event.end_s * fps) < num_frames else event.end_s + BEYOND_S
        performance = Performance.random(event.action, start_s, end_s, rng)
        others = [other for other in performances if other.end_s > start_s]
        sides = free_sides(event.action, _busy(others))
        if not sides:
            names = ", ".join(ACTIONS[other.action] for other in others)
            raise ValueError(f"{ACTIONS[event.action]} at {event.start_s} s needs a limb that moves already: {names}")
        performances.append(performance if performance.side in sides else replace(performance, side=sides[0]))
    subject = Subject.from_seed(subject_seed)
    if any(event.action == GLASSES_ACTION for event in events):
        subject = replace(subject, has_glasses=True)
    return subject, performances, num_frames, rng


@dataclass(frozen=True)
class _Starts:
    """How often each action begins, in relation to the others, and the mean length of those that begin."""

    actions: tuple[int, ...]
    weights: np.ndarray
    mean_length_s: float


@lru_cache(maxsize=32)
def _starts(actions: tuple[int, ...], balanced: bool) -> _Starts:
    """Return the weights with which windows show the actions as often as they should.

    A window of length W sees actions of length L that begin within W + L. An action that needs a limb that another uses has to
    wait, most of all those of both hands: its weight is raised until it begins as often as one that does not.
    """
    unique = tuple(dict.fromkeys(actions))
    frequencies = np.array([1.0 if balanced else HABITS[action].per_10_000 for action in unique])
    lengths_s = np.array([_mean_length_s(action) for action in unique])
    rates = frequencies / (TYPICAL_DURATION_S + lengths_s)
    rates /= rates.sum()
    running = rates * lengths_s / (rates @ lengths_s)
    compatible = np.array([[are_compatible(action, other) for action in unique] for other in unique], float)
    rates /= np.maximum(compatible @ running, 0.01) ** OVERLAP_PREFERENCE
    rates /= rates.sum()
    idle_starts = _idle_starts()
    weights = rates
    for _ in range(FITTING_STEPS):
        beside = compatible / np.maximum(compatible @ weights, 1e-12)[:, None]  # while the row's action runs
        chances = idle_starts / weights.sum() + (1 - idle_starts) * (running @ beside)
        weights = rates / chances
    return _Starts(unique, weights, float(rates @ lengths_s))


def _idle_starts() -> float:
    """Return the fraction of starts while nothing runs."""
    times = [1.0]  # with n actions, in relation to that with none
    for n, starts in enumerate(STARTS, start=1):
        times.append(times[-1] * starts / n)
    return STARTS[0] / sum(time * starts for time, starts in zip(times, STARTS, strict=False))


def _mean_length_s(action: int) -> float:
    return HABITS[action].median_s * float(np.exp(LENGTH_SPREAD**2 / 2))


def _timeline(starts: _Starts, end_s: float, rng: np.random.Generator) -> Iterator[_Running]:
    """Yield actions in the order of their starts, up to `end_s`."""
    running: list[_Running] = []
    ended_s: dict[int, float] = {}
    time_s = -WARM_UP_S
    while time_s < end_s:
        next_end_s = min((other.end_s for other in running), default=np.inf)
        wait_s = np.inf if len(running) == len(STARTS) else rng.exponential(starts.mean_length_s / STARTS[len(running)])
        time_s = min(time_s + wait_s, next_end_s)
        if time_s == next_end_s:
            running = [other for other in running if other.end_s > time_s]
            continue
        limbs = _busy(running)
        free = (
            (action, sides[0])
            for action in _in_random_order(starts, rng)
            if ended_s.get(action, -np.inf) + REPEAT_AFTER_S <= time_s and (sides := free_sides(action, limbs))
        )
        action, side = next(free, (None, 0))
        if action is None:
            continue
        length_s = HABITS[action].median_s * float(np.exp(LENGTH_SPREAD * rng.standard_normal()))
        begun = _Running(action, side, time_s, time_s + min(max(length_s, MIN_LENGTH_S), MAX_LENGTH_S))
        running.append(begun)
        ended_s[action] = begun.end_s
        yield begun


def _overlap(events: Sequence[TruthEvent]) -> bool:
    """Return whether any two of the events, which are ordered by their start, overlap."""
    return any(event.end_s > later.start_s for event, later in pairwise(events))


def _in_random_order(starts: _Starts, rng: np.random.Generator) -> Iterator[int]:
    """Yield the actions as if each were drawn by its weight from those that are left."""
    for index in np.argsort(rng.exponential(size=len(starts.actions)) / starts.weights):
        yield starts.actions[index]


def _busy(performed: Sequence[_Running | Performance]) -> frozenset[str]:
    return frozenset().union(*(limbs_of(one.action, one.side) for one in performed))


def _window(timeline: Iterator[_Running], num_frames: int, fps: int) -> list[TruthEvent]:
    """Return what a video shows of a timeline, which begins at frame 0."""
    spans = []
    for one in timeline:
        start, end = max(round(one.start_s * fps), 0), min(round(one.end_s * fps), num_frames)
        shortest_s = MIN_CUT_S if start == 0 or end == num_frames else MIN_LENGTH_S
        if end - start >= shortest_s * fps:
            spans.append((start, end, one.action))
    return [TruthEvent(action, start / fps, end / fps) for start, end, action in sorted(spans)]
