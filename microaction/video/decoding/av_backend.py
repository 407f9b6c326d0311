"""Decoding with PyAV: the requested frames, by number or by time, and as few others as exactness allows.

Single-threaded: several videos are decoded in parallel instead.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.bitstream import Structure, structure_of
from microaction.video.decoding.container import OpenVideo, open_video, time_base
from microaction.video.decoding.formats import COUNTED_FORMATS
from microaction.video.decoding.gop import NotExactError, RepeatedTimeError
from microaction.video.decoding.picture import Picture
from microaction.video.decoding.rgb import RgbConverter
from microaction.video.decoding.selective import SelectivePass
from microaction.video.decoding.sequential import SequentialPass
from microaction.video.decoding.sources import Source
from microaction.video.decoding.starting import (
    SeekPointError,
    at_beginning,
    at_seek_point,
    from_beginning,
    in_index,
    unplaced,
)
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame
from microaction.video.decoding.timeline import SeekPoint

DECODER = f"av {av.__version__}"
# Their frames shown at a key frame's timestamp or later never refer to frames before it, and the container marks key frames.
CODECS_WITH_RELIABLE_KEY_FRAMES = ("av1", "mpeg1video", "mpeg2video", "mpeg4", "vp8")
SEEK_GAP_S = 20  # a longer gap between two wanted frames is skipped through the index instead of being read

Transform = Callable[[np.ndarray], np.ndarray]


def frames_at_indices(source: Source, indices: Sequence[int], transform: Transform) -> Iterator[np.ndarray]:
    """Yield the transformed RGB frames [H, W, 3] at ascending, distinct `indices`, counted in presentation order.

    Raises `DecodeError` at a frame that cannot be decoded.
    """
    with open_video(source) as video:
        for target_frame in _target_frames(video, AtIndices(indices), transform):
            if target_frame.image is None:
                raise DecodeError(video.uri, target_frame.reason)
            yield target_frame.image


def frames_at_times(
    source: Source, times_s: Sequence[Fraction], transform: Transform, seek_points: Sequence[SeekPoint] = ()
) -> Iterator[TargetFrame]:
    """Yield the transformed RGB frames [H, W, 3] that are on the screen at the ascending `times_s`, from the track's start.

    The frame on the screen at t is the last one with a presentation timestamp ≤ t, or the first frame of all. A frame that is
    on the screen at several of the times is yielded once, for all of them. For a frame that cannot be decoded, None and the
    reason are yielded. `seek_points` are those that `probe` found: without them, a stream without an index is decoded from
    its beginning. Raises `DecodeError` if the source is not a readable video.
    """
    try:
        yield from _frames_at_times(source, times_s, transform, seek_points)
    except SeekPointError:  # raised before any frame
        yield from _frames_at_times(source, times_s, transform, ())


def _frames_at_times(
    source: Source, times_s: Sequence[Fraction], transform: Transform, seek_points: Sequence[SeekPoint]
) -> Iterator[TargetFrame]:
    with open_video(source) as video:
        origin_tick = 0 if video.format_name in COUNTED_FORMATS else video.origin_tick
        targets = AtTimes(times_s, origin_tick, time_base(video.stream))
        yield from _target_frames(video, targets, transform, seek_points)


def _target_frames(
    video: OpenVideo, targets: AtIndices | AtTimes, transform: Transform, seek_points: Sequence[SeekPoint] = ()
) -> Iterator[TargetFrame]:
    to_rgb = RgbConverter(Picture.of(video.stream))

    def to_image(frame: av.VideoFrame) -> np.ndarray:
        return transform(to_rgb(frame))

    codec = video.stream.codec_context
    structure = structure_of(codec.name, codec.extradata)
    can_seek = video.is_seekable and (structure is not None or codec.name in CODECS_WITH_RELIABLE_KEY_FRAMES)
    remaining = set(range(len(targets)))
    if can_seek and structure is not None and structure.is_selective:
        try:
            for target_frame in _decode_selectively(video, structure, targets, to_image):
                remaining.difference_update(range(target_frame.first, target_frame.last + 1))
                yield target_frame
            return
        except RepeatedTimeError:
            pass
        except NotExactError:
            can_seek = False  # the stream's own declarations are wrong: rely on none of them
    if not remaining:
        return
    first = min(remaining)
    sequential = _sequential_pass(video, targets, to_image, first, seek_points, structure=structure, can_seek=can_seek)
    for target_frame in (
        sequential.at_times(targets) if isinstance(targets, AtTimes) else sequential.at_indices(targets)
    ):
        if not remaining.isdisjoint(range(target_frame.first, target_frame.last + 1)):
            yield target_frame


def _decode_selectively(
    video: OpenVideo,
    structure: Structure,
    targets: AtIndices | AtTimes,
    to_image: Callable[[av.VideoFrame], np.ndarray],
) -> Iterator[TargetFrame]:
    for run in _split_at_gaps(targets):
        if isinstance(targets, AtTimes):
            start = in_index(video, targets.tick(run.start), targets.tick(run.stop - 1), structure)
        else:
            start = at_beginning(video)
        selective = SelectivePass(
            video,
            start.packets,
            structure,
            targets,
            to_image,
            first=run.start,
            stop=run.stop,
            is_stream_start=start.pts is None,
        )
        yield from selective.run()


def _sequential_pass(
    video: OpenVideo,
    targets: AtIndices | AtTimes,
    to_image: Callable[[av.VideoFrame], np.ndarray],
    first: int,
    seek_points: Sequence[SeekPoint],
    *,
    structure: Structure | None,
    can_seek: bool,
) -> SequentialPass:
    """Return a pass that starts as late as the targets from `first` on allow."""
    start_pts = None
    if video.is_seekable:
        if can_seek and isinstance(targets, AtTimes):
            start = in_index(video, targets.tick(first), targets.tick(len(targets) - 1), structure)
        else:
            start = at_beginning(video)
        packets, start_pts = unplaced(start.packets), start.pts
    else:
        found = at_seek_point(video, seek_points, targets.tick(first)) if isinstance(targets, AtTimes) else None
        if found is not None:
            packets, start_pts = found
        else:
            packets = from_beginning(video)
    return SequentialPass(video, packets, to_image, first=first, stop=len(targets), start_pts=start_pts)


def _split_at_gaps(targets: AtIndices | AtTimes) -> Iterator[range]:
    """Yield runs of targets, split where seeking over the gap between two of them is faster than reading on."""
    start = 0
    if isinstance(targets, AtTimes):
        for target in range(1, len(targets)):
            if targets.times_s[target] - targets.times_s[target - 1] > SEEK_GAP_S:
                yield range(start, target)
                start = target
    yield range(start, len(targets))
