"""Windows of a chunk for networks that see skeletons: each cut to the square around the people in it. Knows no Ray, no torch.

Shapes: W windows, M people, T frames, K keypoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from microaction.preprocessing import Preprocessing
from microaction.skeletons import Skeleton, SkeletonError
from microaction.skeletons.archive import ArchiveSkeletons, frames_at
from microaction.skeletons.errors import NoSkeletonError
from microaction.skeletons.framing import PeopleFraming
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.video import ChunkFrames, FrameSampling, SeekPoint, decode_chunk
from microaction.video.decoding.sources import Source
from microaction.video.windows import MICROSECONDS, Span

if TYPE_CHECKING:
    from microaction.labeling.settings import VideoLabelSettings
    from microaction.models import Checkpoint


@dataclass(frozen=True)
class WindowSkeletons:
    """Where windows' skeletons come from, and which of their frames the network sees: `num_pose_frames`, or 0 for the square
    alone, which is then that around all of a window's frames."""

    table: ArchiveSkeletons
    num_pose_frames: int
    preprocessing: Preprocessing

    def read(self, row: dict[str, Any], windows: Sequence[Span]) -> list[Skeleton]:
        """Return the sampled skeleton of each window of a row of `schema.CHUNK`, without keypoints where nobody was found.

        Raises `NoSkeletonError` if that is so in all of them.
        """
        fps = row["fps"]
        if not fps:
            raise NoSkeletonError("the catalog has no frame rate (fps), so nothing tells which frames are shown when")
        first = int(windows[0].start_us * fps / MICROSECONDS)
        end = int(max(window.end_us for window in windows) * fps / MICROSECONDS) + 1
        whole = self.table.read(row["video"], first, max(end, first + 1))
        found = [whole.at(self._frames(window, fps) - first) for window in windows]
        if not any(skeleton.scores_MNK.any() for skeleton in found):
            raise NoSkeletonError("nobody was found here: the table has no keypoint of these frames")
        return found

    def _frames(self, window: Span, fps: float) -> np.ndarray:
        if self.num_pose_frames:
            sampling = FrameSampling.of(self.num_pose_frames, self.preprocessing)
            return frames_at(sampling.window_times(window), fps)
        start, end = (int(time_us * fps / MICROSECONDS) for time_us in (window.start_us, window.end_us))
        return np.arange(start, max(end, start + 1))


def decode_around_people(
    source: Source,
    chunk: Span,
    windows: Sequence[Span],
    *,
    skeletons: Sequence[Skeleton],
    num_pose_sampled: int,
    sampling: FrameSampling,
    side: int,
    seek_points: Sequence[SeekPoint],
) -> tuple[ChunkFrames, np.ndarray]:
    """Decode the windows, each cut to the square around the people in its skeleton; see `decode_chunk`.

    Returns their pixels, and their keypoints [W, M, T, K, 3] (float32) in pixels of the squares. A window in whose skeleton
    nobody was found counts as damage: nothing tells where to look. Raises `DecodeError` if no window is left.
    """
    is_found_W = np.array([bool(skeleton.scores_MNK.any()) for skeleton in skeletons])
    framings = [PeopleFraming(skeleton, side) for skeleton in skeletons]
    chosen: list[int] = np.flatnonzero(is_found_W).tolist()
    pixels = decode_chunk(
        source,
        chunk,
        [windows[number] for number in chosen],
        sampling=sampling,
        framings=[framings[number] for number in chosen],
        seek_points=seek_points,
    )
    window_frames_WT = np.full((len(windows), sampling.num_sampled), -1, np.int32)
    window_frames_WT[chosen] = pixels.window_frames_WT
    num_people = max(len(skeleton.scores_MNK) for skeleton in skeletons)
    keypoints_WMTK3 = np.zeros((len(windows), num_people, num_pose_sampled, NUM_KEYPOINTS, 3), np.float32)
    for number in np.flatnonzero((window_frames_WT >= 0).all(axis=1)):
        found_MTK3 = framings[number].keypoints()
        keypoints_WMTK3[number, : len(found_MTK3)] = found_MTK3[:, :num_pose_sampled]
    damage = pixels.damage
    if not is_found_W.all():
        damage = (
            damage or f"nobody was found in {len(windows) - len(chosen)} windows: the table has no keypoints of them"
        )
    return ChunkFrames(pixels.frames_NHWC, window_frames_WT, damage, pixels.num_bytes), keypoints_WMTK3


def check_skeletons(settings: "VideoLabelSettings", checkpoint: "Checkpoint") -> None:
    """Raise `SkeletonError` unless the settings have a table of skeletons just where the network needs one."""
    config, uri = checkpoint.config, checkpoint.ref.uri
    if config.model.num_rgb_frames == 0:
        raise SkeletonError(
            f"{uri} is a {config.model.family}, which sees no frames: train pcan with it (init_pose), and label with that"
        )
    if config.needs_skeletons and settings.skeletons is None:
        raise SkeletonError(
            f"{uri} sees the skeletons of people: give a table of the archive's (--skeletons), as the documentation describes "
            "it"
        )
    if settings.skeletons is not None:
        if not config.needs_skeletons:
            raise SkeletonError(f"{uri} does not see skeletons: leave skeletons out")
        ArchiveSkeletons(settings.skeletons, "").check()
