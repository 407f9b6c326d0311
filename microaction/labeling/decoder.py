"""The decode stage. Whatever a file does in it costs its own chunk alone. Knows no Ray.

Nothing here may import torch: a decoding process would take a second longer to start, and its memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from microaction.clips.manifest import region_of
from microaction.errors import FailureKind, VideoChangedError, reason_of
from microaction.labeling.people import WindowSkeletons, decode_around_people
from microaction.labeling.reuse import WindowReuse, Windows
from microaction.labeling.settings import VideoLabelSettings
from microaction.preprocessing import Preprocessing
from microaction.schema import UNCOMMITTED_COLUMNS
from microaction.skeletons.archive import ArchiveSkeletons
from microaction.storage import version_of
from microaction.video import ChunkFrames, FrameSampling, Framing, SeekPoint, decode_chunk
from microaction.video.decoding.av_backend import DECODER
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import Span, microseconds, split_windows

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig

MIN_DECODE_TIME_S = 30  # for the shortest clip, on a node that is busy with other things


@dataclass(frozen=True)
class Decoder:
    """The decode stage: adds a chunk's frames and windows to its row, and the reason where some or all are missing.

    Decoding happens in a process of its own (`sandbox`): what a file does to it costs this chunk alone.
    """

    window_us: int
    stride_us: int
    sampling: FrameSampling
    preprocessing: Preprocessing
    limits: Limits  # for a whole chunk
    chunk_us: int
    reuse: WindowReuse | None
    skeletons: WindowSkeletons | None = None
    decode: ClassVar[Callable[..., ChunkFrames]] = staticmethod(decode_chunk)

    @classmethod
    def of(
        cls,
        settings: VideoLabelSettings,
        checkpoint: "CheckpointConfig",
        reuse: WindowReuse | None = None,
        *,
        archive: str = "",
    ) -> Self:
        """Return the decode stage for a network and settings; a table of skeletons names videos relative to `archive`."""
        skeletons = None
        if settings.skeletons is not None:
            table = ArchiveSkeletons(settings.skeletons, archive)
            skeletons = WindowSkeletons(table, checkpoint.model.num_pose_frames, checkpoint.preprocessing)
        return cls(
            microseconds(settings.window_s),
            microseconds(settings.stride_s),
            FrameSampling.of(checkpoint.model.num_rgb_frames, checkpoint.preprocessing),
            checkpoint.preprocessing,
            Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)),
            microseconds(settings.chunk_s),
            reuse,
            skeletons,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Decode a row of `schema.CHUNK`; never raises for what is in the file."""
        chunk = Span(row["chunk_start_us"], row["chunk_end_us"])
        windows = split_windows(row["duration_us"], self.window_us, self.stride_us, chunk)
        reused, pixels, keypoints_WMTK3 = Windows.none(), None, None
        error, reason = "", ""
        try:
            if self.reuse is not None:
                reused = self.reuse.reused(row)
                reused_us = set(reused.start_us_W.tolist())
                windows = [window for window in windows if window.start_us not in reused_us]
            if windows:
                pixels, keypoints_WMTK3 = self._decoded(row, chunk, windows)
                error, reason = FailureKind.DECODE_ERROR if pixels.damage else "", pixels.damage
        except Exception as failure:  # nothing in one file may cost another its row
            error = FailureKind.of(failure)
            reason = reason_of(failure)
        if pixels is None:
            crop, T = self.preprocessing.side, self.sampling.num_sampled
            pixels = ChunkFrames(np.empty((0, crop, crop, 3), np.uint8), np.full((len(windows), T), -1, np.int32))
        return decoded_row(
            row, windows, pixels, reused, error=str(error), reason=reason, keypoints_WMTK3=keypoints_WMTK3
        )

    def _decoded(
        self, row: dict[str, Any], chunk: Span, windows: Sequence[Span]
    ) -> tuple[ChunkFrames, np.ndarray | None]:
        _check_version(row["video"], row["video_version"])
        seek_points = [SeekPoint(**point) for point in row["seek_points"] or ()]
        if self.skeletons is not None:
            return sandboxed(
                row["video"],
                self._limits_of(chunk),
                decode_around_people,
                row["video"],
                chunk,
                windows,
                skeletons=self.skeletons.read(row, windows),
                num_pose_sampled=self.skeletons.num_pose_frames * self.preprocessing.views,
                sampling=self.sampling,
                side=self.preprocessing.side,
                seek_points=seek_points,
            )
        pixels = sandboxed(
            row["video"],
            self._limits_of(chunk),
            self.decode,
            row["video"],
            chunk,
            windows,
            sampling=self.sampling,
            framing=Framing.of(self.preprocessing, region_of(row)),
            seek_points=seek_points,
        )
        return pixels, None

    def _limits_of(self, chunk: Span) -> Limits:
        """Less time for less video: a block of many short clips must not stall for as many times the limit."""
        proportional_s = self.limits.time_s * (chunk.end_us - chunk.start_us) / self.chunk_us
        return replace(self.limits, time_s=min(self.limits.time_s, max(proportional_s, MIN_DECODE_TIME_S)))


def _check_version(video: str, version: str) -> None:
    """Raise `VideoChangedError` unless the file is still the cataloged one: windows of two files must not pass for those of
    one."""
    try:
        present = version_of(video)
    except FileNotFoundError:
        present = ""
    if present != version:
        what = "has changed" if present else "no longer exists"
        raise VideoChangedError(
            f"the file {what} since it was cataloged: run the same command again, or make a new catalog"
        )


def decoded_row(
    row: dict[str, Any],
    windows: Sequence[Span],
    pixels: ChunkFrames,
    reused: Windows,
    *,
    decoder: str = DECODER,
    error: str = "",
    reason: str = "",
    keypoints_WMTK3: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return what the label stage gets of a chunk: the windows that have all their frames, and what is reused."""
    is_complete = (pixels.window_frames_WT >= 0).all(axis=1)
    if keypoints_WMTK3 is None:
        keypoints_WMTK3 = np.zeros((len(windows), 0, 0, 0, 3), np.float32)
    keypoints_WMTK3 = keypoints_WMTK3[is_complete]
    return {name: value for name, value in row.items() if name not in UNCOMMITTED_COLUMNS} | {
        "decoder": decoder,
        "window_start_us": np.array([window.start_us for window in windows], np.int64)[is_complete],
        "window_end_us": np.array([window.end_us for window in windows], np.int64)[is_complete],
        "frames": pixels.frames_NHWC,
        "window_frames": pixels.window_frames_WT[is_complete],
        "keypoints": keypoints_WMTK3.ravel(),  # Ray's tensors of a column have as many dimensions in all its blocks
        "keypoints_shape": np.array(keypoints_WMTK3.shape, np.int32),
        "reused_start_us": reused.start_us_W,
        "reused_end_us": reused.end_us_W,
        "reused_probabilities": reused.probabilities_WK.ravel(),
        "reused_run": reused.run_W,
        "num_bytes": pixels.num_bytes,
        "error": error,
        "reason": reason,
    }
