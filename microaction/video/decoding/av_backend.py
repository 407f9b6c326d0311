"""Decoding with PyAV: the frames that are asked for, by number or by time, and as little else as is exact.

Single-threaded: cores are used by decoding several videos at once.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import av
import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.bitstream import MAX_REORDER, Structure, annex_b_start, structure_of
from microaction.video.decoding.container import (
    LostDataError,
    OpenVideo,
    Source,
    VideoPacket,
    hint_byte_range,
    open_video,
    time_base,
)
from microaction.video.decoding.formats import COUNTED_FORMATS, FULLY_INDEXED_FORMATS, SEEKABLE_FORMATS
from microaction.video.decoding.group import NotExactError
from microaction.video.decoding.rgb import RgbConverter
from microaction.video.decoding.selective import SelectivePass
from microaction.video.decoding.sequential import SequentialPass
from microaction.video.decoding.targets import AtIndices, AtTimes, TargetFrame

DECODER = f"av {av.__version__}"
# Frames shown at a key frame's time or later never refer to what came before it, and the container says which are keys.
CODECS_WITH_TRUE_KEY_FRAMES = ("av1", "mpeg1video", "mpeg2video", "mpeg4", "vp8")
STREAM_FORMATS = ("mpeg", "mpegts")  # a recording of a transmission: it goes on after damage
SEEK_GAP_S = 20  # video between two wanted frames that is passed over by its index instead of being read
FIRST_STEP_BACK_S = 4

Transform = Callable[[np.ndarray], np.ndarray]


def frames_at_indices(source: Source, indices: Sequence[int], transform: Transform) -> Iterator[np.ndarray]:
    """RGB frames [H, W, 3] at the ascending, distinct `indices`, counted in presentation order, each as `transform` makes it.

    Raises `DecodeError` where one of them cannot be decoded.
    """
    with open_video(source) as video:
        for found in _found(video, AtIndices(indices), transform):
            if found.image is None:
                raise DecodeError(video.uri, found.reason)
            yield found.image


def frames_at_times(source: Source, times_s: Sequence[Fraction], transform: Transform) -> Iterator[TargetFrame]:
    """The frames that are on the screen at the ascending `times_s`, as RGB [H, W, 3] after `transform`.

    The frame on the screen at t is the last one with a presentation time ≤ t, or the first frame of all. A frame that is
    on the screen at several of the times comes once, for all of them. A frame that cannot be decoded comes as None, with the
    reason. Raises `DecodeError` where the source is no readable video.
    """
    with open_video(source) as video:
        if video.format in COUNTED_FORMATS:
            if not video.rate:
                raise DecodeError(video.uri, "it does not say how many frames a second has")
            targets = AtTimes(times_s, 0, 1 / video.rate)
        else:
            targets = AtTimes(times_s, video.first_tick, time_base(video.stream))
        yield from _found(video, targets, transform)


def _found(video: OpenVideo, targets: AtIndices | AtTimes, transform: Transform) -> Iterator[TargetFrame]:
    to_rgb = RgbConverter()

    def to_picture(frame: av.VideoFrame) -> np.ndarray:
        return transform(to_rgb(frame))

    codec = video.stream.codec_context
    structure = structure_of(codec.name, codec.extradata)
    can_seek = video.format in SEEKABLE_FORMATS and (structure is not None or codec.name in CODECS_WITH_TRUE_KEY_FRAMES)
    unanswered = set(range(len(targets)))
    if can_seek and structure is not None and structure.selective:
        try:
            for found in _selected(video, structure, targets, to_picture):
                unanswered.difference_update(range(found.first, found.last + 1))
                yield found
            return
        except NotExactError:
            can_seek = False  # the stream is not what it says: nothing of it is taken on trust
    if not unanswered:
        return
    first = min(unanswered)
    for found in _everything(video, structure, targets, to_picture, first=first, from_beginning=not can_seek):
        if not unanswered.isdisjoint(range(found.first, found.last + 1)):
            yield found


def _selected(
    video: OpenVideo,
    structure: Structure,
    targets: AtIndices | AtTimes,
    to_picture: Callable[[av.VideoFrame], np.ndarray],
) -> Iterator[TargetFrame]:
    for run in _runs(targets):
        if isinstance(targets, AtTimes):
            start = _seek(video, targets.tick(run.start), targets.tick(run.stop - 1), structure)
        else:
            start = _beginning(video)
        selective = SelectivePass(
            video,
            start.packets,
            structure,
            targets,
            to_picture,
            first=run.start,
            stop=run.stop,
            is_beginning=start.pts is None,
        )
        yield from selective.run()


def _everything(
    video: OpenVideo,
    structure: Structure | None,
    targets: AtIndices | AtTimes,
    to_picture: Callable[[av.VideoFrame], np.ndarray],
    *,
    first: int,
    from_beginning: bool,
) -> Iterator[TargetFrame]:
    codec = video.stream.codec_context.name
    if from_beginning or isinstance(targets, AtIndices):
        start = _beginning(video)
    else:
        start = _seek(video, targets.tick(first), targets.tick(len(targets) - 1), structure)
    everything = SequentialPass(
        video,
        start.packets,
        to_picture,
        first=first,
        stop=len(targets),
        start_pts=start.pts,
        is_start=annex_b_start(codec) if video.format in STREAM_FORMATS else None,
    )
    yield from everything.at_times(targets) if isinstance(targets, AtTimes) else everything.at_indices(targets)


def _runs(targets: AtIndices | AtTimes) -> Iterator[range]:
    """Targets cut where so much video lies between two that seeking is better than reading on."""
    start = 0
    if isinstance(targets, AtTimes):
        for target in range(1, len(targets)):
            if targets.times_s[target] - targets.times_s[target - 1] > SEEK_GAP_S:
                yield range(start, target)
                start = target
    yield range(start, len(targets))


class _Start(NamedTuple):
    """Packets from where decoding may start for frames shown at `pts` or later; None: from the beginning."""

    packets: Iterator[VideoPacket]
    pts: int | None


def _beginning(video: OpenVideo) -> _Start:
    entries = video.stream.index_entries
    first = min(video.first_tick, entries[0].timestamp) if len(entries) else video.first_tick
    if video.format in SEEKABLE_FORMATS:
        video.container.seek(first, stream=video.stream, backward=True)
        return _Start(_from_first_frame(video), None)
    return _Start(video.packets(), None)


def _from_first_frame(video: OpenVideo) -> Iterator[VideoPacket]:
    """The packets; raises `LostDataError` instead of the first if a damaged index has led past the video's beginning."""
    packets, held = video.packets(), []
    for packet in packets:
        held.append(packet)
        if packet.size and (packet.pts is None or packet.pts <= video.first_tick):
            break
        if len(held) > MAX_REORDER:
            raise LostDataError
    yield from held
    yield from packets


def _hint_byte_range(video: OpenVideo, first_tick: int, last_tick: int) -> None:
    """Tells a remote file which of its bytes hold the frames between, and those read to be sure of the last one."""
    entries = video.stream.index_entries
    first = entries.search_timestamp(first_tick, backward=True)
    before = entries.search_timestamp(last_tick, backward=True, any_frame=True)
    if first < 0 or before < 0:
        return
    start, last = entries[first], entries[before]
    after = entries[min(before + 1, len(entries) - 1)]
    if video.format in FULLY_INDEXED_FORMATS:
        after = entries[min(before + MAX_REORDER + 1, len(entries) - 1)]
        end = after.pos + after.size
    elif after.timestamp > last.timestamp:  # one entry for each group of pictures: so far into the last one
        seen = Fraction(last_tick + MAX_REORDER * video.frame_ticks - last.timestamp, after.timestamp - last.timestamp)
        end = last.pos + int(min(seen, Fraction(1)) * (after.pos - last.pos))
    else:
        return
    hint_byte_range(video.file, range(start.pos, end))


def _seek(video: OpenVideo, tick: int, last_tick: int, structure: Structure | None) -> _Start:
    """The last place found from which the frame shown at `tick` can be decoded, or the beginning.

    Frames up to the one shown at `last_tick` will be read.
    """
    step_back = 0
    while tick - step_back > video.first_tick:
        # The index goes by decoding time and by the container's idea of key frames: what it finds is looked at.
        video.container.seek(tick - step_back, stream=video.stream, backward=True)
        _hint_byte_range(video, tick, last_tick)
        packets = video.packets()
        for packet in packets:
            if packet.pts is None or packet.pts > tick:
                break
            if packet.is_keyframe if structure is None else structure.kind_of(memoryview(packet)).is_random_access:
                return _Start(chain([packet], packets), packet.pts)
        step_back = 2 * step_back or int(FIRST_STEP_BACK_S / time_base(video.stream))
    beginning = _beginning(video)
    _hint_byte_range(video, video.first_tick, last_tick)
    return beginning
