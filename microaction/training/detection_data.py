"""Untrimmed videos as a detector's training clips: which parts of which videos, with which instances.

Shapes: N instances, V videos, T steps of a clip.
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from microaction import storage
from microaction.clips.instances import AnnotatedVideo
from microaction.clips.steps import VideoFacts, probe_videos
from microaction.models.detector.config import STEPS_PER_S
from microaction.schema import parquet_bytes
from microaction.training.errors import TrainingError
from microaction.training.state import saved_step
from microaction.video import Region
from microaction.video.windows import MICROSECONDS

FACTS_FILE = "videos.parquet"
MIN_VISIBLE = 0.5  # of an instance that a clip cuts, for the clip to have it
MIN_LENGTH = 0.9  # of a clip, at random, as a fraction of what it may have


@dataclass(frozen=True)
class TrainingVideo:
    """A video whose header could be read, and its instances: segments [N, 2] in grid units (float32) and labels [N]."""

    video: AnnotatedVideo
    facts: VideoFacts
    segments_N2: np.ndarray
    label_N: np.ndarray

    @property
    def num_steps(self) -> int:
        """Steps of the whole video."""
        return self.facts.num_steps

    @property
    def region(self) -> Region | None:
        """The part of its frames that counts; None: whole frames."""
        return self.video.instances[0].region


def training_videos(videos: Sequence[AnnotatedVideo], facts: dict[str, VideoFacts]) -> list[TrainingVideo]:
    """Return the videos that can be read; instances that begin beyond the video's end are left out."""
    found = []
    for video in videos:
        of_file = facts[video.uri]
        if of_file.reason:
            continue
        spans_N2 = np.array([(each.start_s, each.end_s) for each in video.instances], np.float64).reshape(-1, 2)
        grid_N2 = (spans_N2 - of_file.start_us / MICROSECONDS) * STEPS_PER_S - 0.5
        is_inside_N = grid_N2[:, 0] < of_file.num_steps - 0.5
        grid_N2 = grid_N2.clip(-0.5, of_file.num_steps - 0.5)[is_inside_N]
        label_N = np.array([each.action_id for each in video.instances], np.int64)[is_inside_N]
        found.append(TrainingVideo(video, of_file, grid_N2.astype(np.float32), label_N))
    return found


def record_facts(run_uri: str, videos: Sequence[AnnotatedVideo], wait_s: float) -> dict[str, VideoFacts]:
    """Read what the run must know of its videos' files, and record it in the run's folder; return it by URI.

    A run that has begun to train keeps what it knew then; until then, videos that could not be read are tried again. Needs a
    running Ray. Raises `TrainingError` for a video that was not on the lists when training began.
    """
    try:
        facts = read_facts(run_uri)
    except FileNotFoundError:
        facts = {}
    uris = list(dict.fromkeys(video.uri for video in videos))
    unknown = [uri for uri in uris if uri not in facts or facts[uri].reason]
    if unknown and saved_step(run_uri) == 0:
        facts |= dict(zip(unknown, probe_videos(unknown, wait_s), strict=True))
        table = pa.Table.from_pylist([{"uri": uri, **of_file._asdict()} for uri, of_file in facts.items()])
        storage.write_bytes(storage.join(run_uri, FACTS_FILE), parquet_bytes(table))
    missing = next((uri for uri in uris if uri not in facts), None)
    if missing is not None:
        raise TrainingError(f"{missing} was not on the lists when {run_uri} began: choose another name for the run")
    return facts


def read_facts(run_uri: str) -> dict[str, VideoFacts]:
    """Return what `record_facts` recorded: the same in every worker. Raises `FileNotFoundError`."""
    rows = pq.read_table(io.BytesIO(storage.read_bytes(storage.join(run_uri, FACTS_FILE)))).to_pylist()
    return {row.pop("uri"): VideoFacts(**row) for row in rows}


class ClipPlace(NamedTuple):
    """A part of a video that training draws from: the `part`-th of `num_parts` equal ones."""

    video: int
    part: int
    num_parts: int


def clip_places(videos: Sequence[TrainingVideo], max_steps: int) -> list[ClipPlace]:
    """Return the places of an epoch's clips: one for each `max_steps` of a video, or less at its end."""
    return [
        ClipPlace(number, part, num_parts)
        for number, video in enumerate(videos)
        for num_parts in [-(-video.num_steps // max_steps)]
        for part in range(num_parts)
    ]


def rarest_labels(videos: Sequence[TrainingVideo]) -> np.ndarray:
    """Return of each video the label of which there are the fewest instances [V]; those without instances share one more."""
    counts = Counter(label for video in videos for label in video.label_N.tolist())
    return np.array(
        [min(video.label_N.tolist(), key=lambda label: (counts[label], label), default=-1) for video in videos],
        np.int64,
    )


class VideoClip(NamedTuple):
    """A clip of a video: its steps, the visible parts of its instances in its own grid units, their labels, and which of them are
    visible enough to be found as instances."""

    steps: range
    segments_N2: Tensor
    label_N: Tensor
    is_kept_N: Tensor


def draw_clip(video: TrainingVideo, place: ClipPlace, max_steps: int, rng: np.random.Generator) -> VideoClip:
    """Return a random clip at a place, of 90 to 100% of the steps that it may have.

    Instances are cut. Those are kept of which at least half is visible, or that fill at least half of the clip.
    """
    longest = min(video.num_steps, max_steps)
    length = max(1, round(longest * rng.uniform(MIN_LENGTH, 1.0)))
    free = video.num_steps - length
    first, last = (round(free * number / place.num_parts) for number in (place.part, place.part + 1))
    start = int(rng.integers(first, last + 1))
    low, high = start - 0.5, start + length - 0.5
    cut_N2 = video.segments_N2.clip(low, high)
    whole_N, visible_N = (np.diff(segments)[:, 0] for segments in (video.segments_N2, cut_N2))
    is_visible_N = visible_N > 0
    is_kept_N = (visible_N >= MIN_VISIBLE * whole_N) | (visible_N >= MIN_VISIBLE * length)
    return VideoClip(
        range(start, start + length),
        torch.from_numpy(np.ascontiguousarray(cut_N2[is_visible_N] - start, np.float32)),
        torch.from_numpy(video.label_N[is_visible_N]),
        torch.from_numpy(is_kept_N[is_visible_N]),
    )
