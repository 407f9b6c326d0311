"""Decoding with PyAV: the requested frames, by number or by time, and as few others as exactness allows.

Single-threaded: several videos are decoded in parallel instead.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import av
import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.bitstream import MAX_REORDER, Structure, annex_b_random_access, structure_of
from microaction.video.decoding.container import OpenVideo, VideoPacket, open_video, time_base
from microaction.video.decoding.damage import LostDataError
from microaction.video.decoding.formats import COUNTED_FORMATS, FULLY_INDEXED_FORMATS, SEEKABLE_FORMATS
from microaction.video.decoding.gop import NotExactError
from microaction.video.decoding.rgb import RgbConverter
from microaction.video.decoding.selective import SelectivePass
from microaction.video.decoding.sequential import SequentialPass
from microaction.video.decoding.sources import Source, hint_byte_range
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame

DECODER = f"av {av.__version__}"
# Their frames shown at a key frame's timestamp or later never refer to frames before it, and the container marks key frames.
CODECS_WITH_RELIABLE_KEY_FRAMES = ("av1", "mpeg1video", "mpeg2video", "mpeg4", "vp8")
BROADCAST_FORMATS = ("mpeg", "mpegts")  # recordings of a transmission: they continue after damage
SEEK_GAP_S = 20  # a longer gap between two wanted frames is skipped through the index instead of being read
FIRST_STEP_BACK_S = 4

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


def frames_at_times(source: Source, times_s: Sequence[Fraction], transform: Transform) -> Iterator[TargetFrame]:
    """Yield the transformed RGB frames [H, W, 3] that are on the screen at the ascending `times_s`.

    The frame on the screen at t is the last one with a presentation timestamp ≤ t, or the first frame of all. A frame that is
    on the screen at several of the times is yielded once, for all of them. For a frame that cannot be decoded, None and the
    reason are yielded. Raises `DecodeError` if the source is not a readable video.
    """
    with open_video(source) as video:
        if video.format_name in COUNTED_FORMATS:
            if not video.fps:
                raise DecodeError(video.uri, "declares no frame rate")
            targets = AtTimes(times_s, 0, 1 / video.fps)
        else:
            targets = AtTimes(times_s, video.origin_tick, time_base(video.stream))
        yield from _target_frames(video, targets, transform)


def _target_frames(video: OpenVideo, targets: AtIndices | AtTimes, transform: Transform) -> Iterator[TargetFrame]:
    to_rgb = RgbConverter()

    def to_image(frame: av.VideoFrame) -> np.ndarray:
        return transform(to_rgb(frame))

    codec = video.stream.codec_context
    structure = structure_of(codec.name, codec.extradata)
    can_seek = video.format_name in SEEKABLE_FORMATS and (
        structure is not None or codec.name in CODECS_WITH_RELIABLE_KEY_FRAMES
    )
    remaining = set(range(len(targets)))
    if can_seek and structure is not None and structure.is_selective:
        try:
            for target_frame in _decode_selectively(video, structure, targets, to_image):
                remaining.difference_update(range(target_frame.first, target_frame.last + 1))
                yield target_frame
            return
        except NotExactError:
            can_seek = False  # the stream's own declarations are wrong: rely on none of them
    if not remaining:
        return
    first = min(remaining)
    for target_frame in _decode_sequentially(video, structure, targets, to_image, first=first, can_seek=can_seek):
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
            start = _seek(video, targets.tick(run.start), targets.tick(run.stop - 1), structure)
        else:
            start = _seek_to_beginning(video)
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


def _decode_sequentially(
    video: OpenVideo,
    structure: Structure | None,
    targets: AtIndices | AtTimes,
    to_image: Callable[[av.VideoFrame], np.ndarray],
    *,
    first: int,
    can_seek: bool,
) -> Iterator[TargetFrame]:
    codec = video.stream.codec_context.name
    if not can_seek or isinstance(targets, AtIndices):
        start = _seek_to_beginning(video)
    else:
        start = _seek(video, targets.tick(first), targets.tick(len(targets) - 1), structure)
    sequential = SequentialPass(
        video,
        start.packets,
        to_image,
        first=first,
        stop=len(targets),
        start_pts=start.pts,
        is_random_access=annex_b_random_access(codec) if video.format_name in BROADCAST_FORMATS else None,
    )
    yield from sequential.at_times(targets) if isinstance(targets, AtTimes) else sequential.at_indices(targets)


def _split_at_gaps(targets: AtIndices | AtTimes) -> Iterator[range]:
    """Yield runs of targets, split where seeking over the gap between two of them is faster than reading on."""
    start = 0
    if isinstance(targets, AtTimes):
        for target in range(1, len(targets)):
            if targets.times_s[target] - targets.times_s[target - 1] > SEEK_GAP_S:
                yield range(start, target)
                start = target
    yield range(start, len(targets))


class _Start(NamedTuple):
    """Packets from a random access point, for frames shown at `pts` or later; `pts` None: from the start of the stream."""

    packets: Iterator[VideoPacket]
    pts: int | None


def _seek_to_beginning(video: OpenVideo) -> _Start:
    entries = video.stream.index_entries
    first = min(video.origin_tick, entries[0].timestamp) if len(entries) else video.origin_tick
    if video.format_name in SEEKABLE_FORMATS:
        video.container.seek(first, stream=video.stream, backward=True)
        return _Start(_from_first_frame(video), None)
    return _Start(video.packets(), None)


def _from_first_frame(video: OpenVideo) -> Iterator[VideoPacket]:
    """Yield the packets; raise `LostDataError` instead of the first one if a damaged index led past the video's beginning."""
    packets, held = video.packets(), []
    for packet in packets:
        held.append(packet)
        if packet.size and (packet.pts is None or packet.pts <= video.origin_tick):
            break
        if len(held) > MAX_REORDER:
            raise LostDataError
    yield from held
    yield from packets


def _hint_byte_range(video: OpenVideo, first_tick: int, last_tick: int) -> None:
    """Announce to a remote file which bytes hold the frames in between, and those read to be certain of the last one."""
    entries = video.stream.index_entries
    first = entries.search_timestamp(first_tick, backward=True)
    before = entries.search_timestamp(last_tick, backward=True, any_frame=True)
    if first < 0 or before < 0:
        return
    start, last = entries[first], entries[before]
    after = entries[min(before + 1, len(entries) - 1)]
    if video.format_name in FULLY_INDEXED_FORMATS:
        after = entries[min(before + MAX_REORDER + 1, len(entries) - 1)]
        end = after.pos + after.size
    elif after.timestamp > last.timestamp:  # one entry per GOP: estimate how much of the last GOP is needed
        ticks = last_tick + MAX_REORDER * video.frame_ticks - last.timestamp
        fraction = min(Fraction(ticks, after.timestamp - last.timestamp), Fraction(1))
        end = last.pos + int(fraction * (after.pos - last.pos))
    else:
        return
    hint_byte_range(video.file, range(start.pos, end))


def _seek(video: OpenVideo, tick: int, last_tick: int, structure: Structure | None) -> _Start:
    """Seek to the last random access point found from which the frame shown at `tick` can be decoded, or to the beginning.

    Frames up to the one shown at `last_tick` will be read.
    """
    step_back = 0
    while tick - step_back > video.origin_tick:
        # The index uses decoding timestamps and the container's key frame flags, so the packet that it finds is checked.
        video.container.seek(tick - step_back, stream=video.stream, backward=True)
        _hint_byte_range(video, tick, last_tick)
        packets = video.packets()
        for packet in packets:
            if packet.pts is None or packet.pts > tick:
                break
            if packet.is_keyframe if structure is None else structure.kind_of(memoryview(packet)).is_random_access:
                return _Start(chain([packet], packets), packet.pts)
        step_back = 2 * step_back or int(FIRST_STEP_BACK_S / time_base(video.stream))
    beginning = _seek_to_beginning(video)
    _hint_byte_range(video, video.origin_tick, last_tick)
    return beginning
