"""Which frames of a clip or window the network sees.

Sources: `segments` is the sampling of Guo et al. 2024, from the authors' published code; `consecutive` is that of mmaction2's
`SampleFrames`; `uniform` that of VideoMAE's fine-tuning; `bins` that of PCAN's published pipeline (Li et al. 2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from microaction.preprocessing import Preprocessing, SamplingRule
from microaction.video.windows import MICROSECONDS, Span

NOMINAL_FPS = (
    30  # of MA-52's clips: consecutive frames of a window are as far apart as in training, whatever the video's rate
)
TEST_SEED = 255  # of `bins`


@dataclass(frozen=True)
class FrameSampling:
    """The rule by which T frames are taken from n.

    `views`: how many times that is done in testing, at different places; the network's probabilities are averaged.
    `interval`: of consecutive frames.
    """

    num_frames: int = 8
    rule: SamplingRule = "segments"
    interval: int = 1
    views: int = 1

    @classmethod
    def of(cls, num_frames: int, preprocessing: Preprocessing) -> Self:
        """Return the rule of a network of `num_frames` frames."""
        return cls(num_frames, preprocessing.sampling, preprocessing.frame_interval, preprocessing.views)

    @property
    def num_sampled(self) -> int:
        """Frames of all views together."""
        return self.num_frames * self.views

    def indices(self, num_frames: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return frame indices of a clip of `num_frames` frames (int64).

        With `rng`, [T], drawn as in training. Without it [V·T], view after view, as in testing. They ascend within a view,
        unless frames in a row run past the end of the clip: they continue from its beginning.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames ({num_frames}) must be at least 1")
        match self.rule:
            case "consecutive":
                return consecutive_indices(num_frames, self.num_frames, self.interval, self.views, rng)
            case "bins":
                return bin_indices(num_frames, self.num_frames, self.views, rng)
            case "uniform" if rng is not None:
                return uniform_indices(num_frames, self.num_frames, rng)
            case "segments" if rng is not None:
                return segment_indices(num_frames, self.num_frames, rng)
        return view_indices(num_frames, self.num_frames, self.views)

    def window_times(self, window: Span) -> list[Fraction]:
        """Return the times of a window's frames [V·T] in exact seconds, as in testing.

        Segments have their frames in the middle of equal parts of the window. The other rules count frames: they see the window
        at the rate of MA-52's clips, 30 frames/s.
        """
        length = window.end_us - window.start_us
        if self.rule in ("consecutive", "bins"):
            num_frames = max(1, round(Fraction(length * NOMINAL_FPS, MICROSECONDS)))
            return _middles(window, self.indices(num_frames).tolist(), num_frames)
        parts = self.num_frames * self.views
        return _middles(window, view_indices(parts, self.num_frames, self.views).tolist(), parts)


def segment_indices(num_frames: int, num_segments: int = 8, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return ascending frame indices [T] (int64), one from each segment of a clip of `num_frames` frames.

    With `rng`, a frame is drawn from each segment, as in training. Segments then have ⌊n/T⌋ frames, so the last n mod T
    frames are never drawn, and a clip with fewer frames than segments repeats some. Without it, the middle frame is
    taken, as in testing: int(i·n/T + n/(2T)).
    """
    if num_frames < 1 or num_segments < 1:
        raise ValueError(f"num_frames ({num_frames}) and num_segments ({num_segments}) must be at least 1")
    segments = np.arange(num_segments)
    if rng is None:
        return view_indices(num_frames, num_segments, 1)
    frames_per_segment = num_frames // num_segments
    if frames_per_segment > 0:
        return segments * frames_per_segment + rng.integers(frames_per_segment, size=num_segments)
    return np.round(segments * num_frames / num_segments).astype(np.int64) % num_frames


def view_indices(num_frames: int, num_segments: int, views: int) -> np.ndarray:
    """Return the frames [V·T] at V evenly spaced places of each of T equal segments; in the middle for one view."""
    places = np.arange(num_segments) * 2 * views + (2 * np.arange(views)[:, None] + 1)
    # In integers: floats could round to the wrong frame.
    indices: np.ndarray = places.ravel() * num_frames // (2 * views * num_segments)
    return indices


def uniform_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random frame from each of T equal segments, which together are the whole clip."""
    places = (np.arange(num_segments) + rng.random(num_segments)) * num_frames / num_segments
    return np.minimum(places.astype(np.int64), num_frames - 1)


def consecutive_indices(
    num_frames: int, length: int, interval: int, views: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Return every `interval`-th frame from an offset, `length` of them; past the end they continue from the beginning.

    With `rng` one offset is drawn, [length]; it is 0 for a clip shorter than the span. Without it, `views` offsets are spread
    evenly over the clip, or one lies in its middle: [views·length].
    """
    steps = np.arange(length) * interval
    if rng is not None:
        offsets = np.array([rng.integers(max(num_frames - length * interval, 0) + 1)])
    else:
        last = max(num_frames - ((length - 1) * interval + 1), 0)
        offsets = np.array([last // 2]) if views == 1 else np.round(np.arange(views) * (last / (views - 1)))
    indices: np.ndarray = (offsets[:, None].astype(np.int64) + steps).ravel() % num_frames
    return indices


def bin_indices(
    num_frames: int, num_sampled: int, views: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Return T frames in a row, and around, of a clip of less; else a random one of each of T bins that grow with the clip.

    With `rng`, [T]. Without it, [V·T] as the reference tests: drawn by numpy's legacy generator, seeded again for each clip, so
    that they depend on the numbers alone.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames ({num_frames}) must be at least 1")
    if rng is not None:
        return _drawn_from_bins(num_frames, num_sampled, int(rng.integers(num_frames)), rng)
    legacy = np.random.RandomState(TEST_SEED)
    starts = [view if num_frames < views else view * num_frames // views for view in range(views)]
    return np.concatenate([_drawn_from_bins(num_frames, num_sampled, start, legacy) for start in starts])


def _drawn_from_bins(
    num_frames: int, num_sampled: int, start: int, rng: np.random.RandomState | np.random.Generator
) -> np.ndarray:
    places = np.arange(num_sampled)
    if num_frames < num_sampled:
        return (start + places) % num_frames
    if num_frames < 2 * num_sampled:
        is_left_out = np.zeros(num_sampled + 1, np.int64)
        is_left_out[rng.choice(num_sampled + 1, num_frames - num_sampled, replace=False)] = 1
        indices: np.ndarray = places + np.cumsum(is_left_out)[:-1]
        return indices
    borders = np.arange(num_sampled + 1) * num_frames // num_sampled
    sizes = np.diff(borders)
    drawn = rng.integers(sizes) if isinstance(rng, np.random.Generator) else rng.randint(sizes)
    return borders[:-1] + drawn


def _middles(window: Span, indices: Sequence[int], parts: int) -> list[Fraction]:
    """Return the middles of some of a window's equal parts."""
    length = window.end_us - window.start_us
    return [
        Fraction(2 * parts * window.start_us + (2 * index + 1) * length, 2 * parts * MICROSECONDS) for index in indices
    ]
