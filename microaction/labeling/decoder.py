"""The decode stage of the pipeline. Whatever a file does in it costs its own chunk alone.

Nothing here may import torch: a decoding process would take a second longer to start, and its memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from microaction.clips.manifest import region_of
from microaction.config import LabelSettings, Preprocessing
from microaction.labeling.earlier import Keeper, Windows
from microaction.schema import NOT_COMMITTED
from microaction.storage import StorageError, version_of
from microaction.video import ChunkFrames, DecodeError, Framing, decode_chunk
from microaction.video.av_backend import DECODER
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import Span, microseconds, split_windows

if TYPE_CHECKING:
    from microaction.model import CheckpointConfig

LEAST_DECODE_TIME_S = 30  # for the shortest clip, on a machine that has other things to do too


class VideoChangedError(Exception):
    """A video is not what the catalog says any more."""


@dataclass(frozen=True)
class Decoder:
    """The decode stage: adds a chunk's frames and windows to its row, and the reason where some or all are missing.

    Decoding happens in a process of its own (`sandbox`): what a file does to it costs this chunk alone.
    """

    window_us: int
    stride_us: int
    num_segments: int
    preprocessing: Preprocessing
    limits: Limits  # of a whole chunk of the grid
    chunk_us: int
    keeper: Keeper | None
    decode: ClassVar[Callable[..., ChunkFrames]] = staticmethod(decode_chunk)

    @classmethod
    def of(cls, settings: LabelSettings, checkpoint: "CheckpointConfig", keeper: Keeper | None) -> Self:
        return cls(
            microseconds(settings.window_s),
            microseconds(settings.stride_s),
            checkpoint.model.num_segments,
            checkpoint.preprocessing,
            Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)),
            microseconds(settings.chunk_s),
            keeper,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = Span(row["chunk_start_us"], row["chunk_end_us"])
        windows = split_windows(row["duration_us"], self.window_us, self.stride_us, chunk)
        crop, T = self.preprocessing.crop, self.num_segments
        kept, pixels = Windows.none(), None
        error, reason = "", ""
        try:
            if self.keeper is not None:
                kept = self.keeper.kept(row)
                starts_us = set(kept.start_us_W.tolist())
                windows = [window for window in windows if window.start_us not in starts_us]
            if windows:
                _require_same(row["video"], row["video_version"])
                pixels = sandboxed(
                    row["video"],
                    self._limits_of(chunk),
                    self.decode,
                    row["video"],
                    chunk,
                    windows,
                    num_segments=T,
                    framing=Framing.of(self.preprocessing, region_of(row)),
                )
                error, reason = DecodeError.__name__ if pixels.damage else "", pixels.damage
        except DecodeError as failure:
            error, reason = type(failure).__name__, failure.reason
        # ValueError: a region that does not lie inside the video's frames
        except (ValueError, StorageError, VideoChangedError) as failure:
            error, reason = type(failure).__name__, str(failure)
        except Exception as failure:  # nothing in one file may cost another its row
            error, reason = type(failure).__name__, f"unexpected: {failure}"
        if pixels is None:
            pixels = ChunkFrames(np.empty((0, crop, crop, 3), np.uint8), np.full((len(windows), T), -1, np.int32))
        return decoded_row(row, windows, pixels, kept, error=error, reason=reason)

    def _limits_of(self, chunk: Span) -> Limits:
        """Less time for less video: a block of many short clips must not stall for as many times the limit."""
        share_s = self.limits.time_s * (chunk.end_us - chunk.start_us) / self.chunk_us
        return replace(self.limits, time_s=min(self.limits.time_s, max(share_s, LEAST_DECODE_TIME_S)))


def _require_same(video: str, version: str) -> None:
    """Raises `VideoChangedError`: windows of two files must not stand as those of one."""
    try:
        now = version_of(video)
    except FileNotFoundError:
        now = ""
    if now != version:
        what = "is another one" if now else "is gone"
        raise VideoChangedError(
            f"the file {what} since it was catalogued; the same command again, or a new catalog, sees it"
        )


def decoded_row(
    row: dict[str, Any],
    windows: Sequence[Span],
    pixels: ChunkFrames,
    kept: Windows,
    *,
    decoder: str = DECODER,
    error: str = "",
    reason: str = "",
) -> dict[str, Any]:
    """What the label stage gets of a chunk: those of the windows of which every frame is there, and what is kept."""
    is_whole = (pixels.window_frames_WT >= 0).all(axis=1)
    return {name: value for name, value in row.items() if name not in NOT_COMMITTED} | {
        "decoder": decoder,
        "window_start_us": np.array([window.start_us for window in windows], np.int64)[is_whole],
        "window_end_us": np.array([window.end_us for window in windows], np.int64)[is_whole],
        "frames": pixels.frames_NHWC,
        "window_frames": pixels.window_frames_WT[is_whole],
        "kept_start_us": kept.start_us_W,
        "kept_end_us": kept.end_us_W,
        "kept_probabilities": kept.probabilities_WK.ravel(),
        "kept_run": kept.run_W,
        "num_bytes": pixels.num_bytes,
        "error": error,
        "reason": reason,
    }
