"""The decode stage. Whatever a file does in it costs its own chunk alone. Knows no Ray.

Nothing here may import torch: a decoding process would take a second longer to start, and its memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import numpy as np

from microaction.clips.manifest import region_of
from microaction.errors import FailureKind, reason_of
from microaction.labeling.grid import is_detector, window_grid
from microaction.labeling.people import crop_of
from microaction.labeling.probe import check_version
from microaction.labeling.reuse import WindowReuse, Windows, shown_alike
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.skeletons import WindowSkeletons, decode_around_people
from microaction.preprocessing import Preprocessing
from microaction.schema import UNCOMMITTED_COLUMNS
from microaction.skeletons.archive import ArchiveSkeletons
from microaction.video import ChunkFrames, FrameSampling, Framing, SeekPoint, decode_chunk
from microaction.video.decoding.av_backend import DECODER
from microaction.video.framing import Crop
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import (
    Span,
    WindowGrid,
    microseconds,
    num_steps_of,
    split_windows,
    step_spans,
)

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig
    from microaction.models.detector.config import DetectorConfig

MIN_DECODE_TIME_S = 30  # for the shortest clip, on a node that is busy with other things


class PersonWindow(NamedTuple):
    """A window of a person, and the crop that shows the person; 0 and None for the whole frame, or the catalog's region.

    `seen`: the span of the person over which the windows are laid, or the whole video. `is_owned`: whether the window starts in
    the chunk; a detector needs frames around it too.
    """

    person: int
    span: Span
    seen: Span
    crop: Crop | None = None
    is_owned: bool = True


@dataclass(frozen=True)
class Decoder:
    """The decode stage: adds a chunk's frames and windows to its row, and the reason where some or all are missing.

    Decoding happens in a process of its own (`sandbox`): what a file does to it costs this chunk alone.
    """

    grid: WindowGrid
    sampling: FrameSampling
    preprocessing: Preprocessing
    limits: Limits  # for a whole chunk
    chunk_us: int
    reuse: WindowReuse | None
    skeletons: WindowSkeletons | None = None
    needed_steps: Callable[[range, int], range] | None = None
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
            window_grid(settings, checkpoint),
            FrameSampling.of(checkpoint.model.num_rgb_frames, checkpoint.preprocessing),
            checkpoint.preprocessing,
            Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)),
            microseconds(settings.chunk_s),
            reuse,
            skeletons,
            cast("DetectorConfig", checkpoint.model).needed_steps if is_detector(checkpoint) else None,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Decode a row of `schema.CHUNK`; never raises for what is in the file."""
        chunk = Span(row["chunk_start_us"], row["chunk_end_us"])
        windows = list(self._windows(row, chunk))
        reused, pixels, keypoints_WMTK3 = Windows.none(), None, None
        error, reason = "", ""
        try:
            if self.reuse is not None:
                reused = self.reuse.reused(row)
                present = {(window.person, *window.span): window.crop for window in windows}
                reused = reused.only(shown_alike(reused, present, row["base_crops"]))
                is_reused = set(zip(reused.person_W.tolist(), reused.start_us_W.tolist(), strict=True))
                windows = [window for window in windows if (window.person, window.span.start_us) not in is_reused]
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

    def _windows(self, row: dict[str, Any], chunk: Span) -> Iterator[PersonWindow]:
        """Yield the windows that start in the chunk, by person and time, and the steps that a detector needs around them.

        Each span of a person is like a little video: its windows begin anew, and the last one ends with it.
        """
        if row["crops"] is None:
            yield from self._windows_in(0, Span(0, row["duration_us"]), chunk, None)
            return
        for placed in sorted(row["crops"], key=lambda placed: (placed["person"], placed["start_us"])):
            seen = Span(placed["start_us"], placed["end_us"])
            yield from self._windows_in(placed["person"], seen, chunk, crop_of(placed))

    def _windows_in(self, person: int, seen: Span, chunk: Span, crop: Crop | None) -> Iterator[PersonWindow]:
        length_us = seen.end_us - seen.start_us
        inside = Span(max(chunk.start_us - seen.start_us, 0), chunk.end_us - seen.start_us)
        if self.needed_steps is None:
            spans = split_windows(length_us, self.grid.window_us, self.grid.stride_us, inside)
            owned = range(len(spans))
        else:
            num_steps = num_steps_of(length_us)
            owned = range(num_steps_of(inside.start_us), min(num_steps_of(inside.end_us), num_steps))
            if not owned:
                return
            needed = self.needed_steps(owned, num_steps)
            spans = step_spans(needed, length_us)
            owned = range(owned.start - needed.start, owned.stop - needed.start)
        for number, span in enumerate(spans):
            moved = Span(seen.start_us + span.start_us, seen.start_us + span.end_us)
            yield PersonWindow(person, moved, seen, crop, number in owned)

    def _decoded(
        self, row: dict[str, Any], chunk: Span, windows: Sequence[PersonWindow]
    ) -> tuple[ChunkFrames, np.ndarray | None]:
        check_version(row["video"], row["video_version"])
        chunk_limits = self._limits_of(chunk)
        if self.needed_steps is not None:
            starts_us = [window.span.start_us for window in windows]
            chunk = Span(min(starts_us), max(starts_us) + 1)
        seek_points = [SeekPoint(**point) for point in row["seek_points"] or ()]
        spans = [window.span for window in windows]
        if self.skeletons is not None:
            return sandboxed(
                row["video"],
                chunk_limits,
                decode_around_people,
                row["video"],
                chunk,
                spans,
                skeletons=self.skeletons.read(row, spans),
                num_pose_sampled=self.skeletons.num_pose_frames * self.preprocessing.views,
                sampling=self.sampling,
                side=self.preprocessing.side,
                seek_points=seek_points,
            )
        framing_of = {
            crop: Framing.of(self.preprocessing, crop or region_of(row)) for crop in {window.crop for window in windows}
        }
        pixels = sandboxed(
            row["video"],
            chunk_limits,
            self.decode,
            row["video"],
            chunk,
            spans,
            sampling=self.sampling,
            framings=[framing_of[window.crop] for window in windows],
            seek_points=seek_points,
        )
        return pixels, None

    def _limits_of(self, chunk: Span) -> Limits:
        """Less time for less video: a block of many short clips must not stall for as many times the limit."""
        proportional_s = self.limits.time_s * (chunk.end_us - chunk.start_us) / self.chunk_us
        return replace(self.limits, time_s=min(self.limits.time_s, max(proportional_s, MIN_DECODE_TIME_S)))


def decoded_row(
    row: dict[str, Any],
    windows: Sequence[PersonWindow],
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
        "window_start_us": np.array([window.span.start_us for window in windows], np.int64)[is_complete],
        "window_end_us": np.array([window.span.end_us for window in windows], np.int64)[is_complete],
        "window_person": np.array([window.person for window in windows], np.int32)[is_complete],
        "window_seen_us": np.array([window.seen for window in windows], np.int64).reshape(-1, 2)[is_complete].ravel(),
        "window_is_owned": np.array([window.is_owned for window in windows], bool)[is_complete],
        "frames": pixels.frames_NHWC,
        "window_frames": pixels.window_frames_WT[is_complete],
        "keypoints": keypoints_WMTK3.ravel(),  # Ray's tensors of a column have as many dimensions in all its blocks
        "keypoints_shape": np.array(keypoints_WMTK3.shape, np.int32),
        "reused_start_us": reused.start_us_W,
        "reused_end_us": reused.end_us_W,
        "reused_person": reused.person_W,
        "reused_probabilities": reused.probabilities_WK.ravel(),
        "reused_run": reused.run_W,
        "num_bytes": pixels.num_bytes,
        "error": error,
        "reason": reason,
    }
