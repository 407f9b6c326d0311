"""The frames of a clip by number: all of a file, or those that are on the screen in a span of a longer one.

A span is found and decoded through the index of its file, so that it costs the same wherever it lies. Files without an index
are read from their beginning up to the span's end.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from microaction import storage
from microaction.errors import DecodeError
from microaction.video.decode import decode_at_times, decode_frames
from microaction.video.decoding.av_backend import Transform
from microaction.video.decoding.bitstream import INTRA_ONLY_CODECS, MAX_REORDER, structure_of
from microaction.video.decoding.container import OpenVideo, open_video, time_base
from microaction.video.decoding.formats import COUNTED_FORMATS, ELEMENTARY_FORMATS
from microaction.video.decoding.sources import Source, name_of, open_counted
from microaction.video.decoding.starting import from_beginning, in_index
from microaction.video.probing import probe
from microaction.video.windows import MICROSECONDS, Span

# Lists round times to 0.1 ms, and Matroska to 1 ms: a frame that would be on the screen for less is not meant.
TOLERANCE_S = Fraction(1, 1000)


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, numbered from 0 in the order in which they are shown.

    `times_s`: of a span, when each is shown, from the start of the video track. `size`: width and height of displayed frames of
    a whole file.
    """

    source: Source
    num_frames: int
    times_s: Sequence[Fraction] | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, source: Source, span: Span | None = None) -> Self:
        """Return the frames of a file, or of a span of it. Raises what `probe` and `span_times` raise."""
        if span is not None:
            times_s = span_times(source, span)
            return cls(source, len(times_s), times_s)
        video = probe(source)
        return cls(source, video.num_frames, size=(video.width, video.height))

    def decode(self, indices: Sequence[int], transform: Transform) -> np.ndarray:
        """Return the transformed frames [N, H, W, 3] (uint8 RGB) in the order of `indices`; repeats are allowed."""
        if self.times_s is None:
            return decode_frames(self.source, indices, transform=transform)
        distinct, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        times_s = [self.times_s[index] for index in distinct.tolist()]
        return decode_at_times(self.source, times_s, transform)[inverse]

    def displayed_size(self) -> tuple[int, int]:
        """Return width and height of the frames; of a span, its first frame is decoded for that."""
        if self.size is not None:
            return self.size
        height, width = self.decode([0], np.copy).shape[1:3]
        return width, height


@contextmanager
def open_clip(uri: str, span: Span | None = None) -> Iterator[ClipFrames]:
    """Read a clip, or open the file of a span. Errors name the URI, also those that are raised while it is open.

    Raises `DecodeError`, also where there is no such file.
    """
    try:
        if span is None:
            yield ClipFrames.of(storage.read_bytes(uri))  # a clip is a few hundred kilobytes: one request
        else:
            with open_counted(uri) as file:
                yield ClipFrames.of(file, span)
    except FileNotFoundError:
        raise DecodeError(uri, "no such file, though the list names it") from None
    except DecodeError as error:
        raise DecodeError(uri, error.reason) from error


def span_times(source: Source, span: Span) -> list[Fraction]:
    """Return when the frames of a span are shown, in seconds from the start of the video track, ascending.

    These are the frames that are on the screen in [start, end) of the span: that at its start, and those that appear before its
    end, whatever the frame rate. The span is on the file's timeline, where 0 s is where players start the file; what lies beyond
    an end of the video track is cut off. Raises `DecodeError` for a span without a frame.
    """
    with open_video(source) as video:
        tick_s, start_s = time_base(video.stream), video.start_s
        begin_s, end_s = (Fraction(time_us, MICROSECONDS) - start_s for time_us in span)
        if end_s <= TOLERANCE_S:
            raise DecodeError(
                name_of(source), f"{_described(span)} ends before the video track begins, at {float(start_s):.3f} s"
            )
        frames_s, track_end_s = _shown(video, begin_s, end_s, tick_s)
    if track_end_s is not None and (begin_s >= track_end_s or not frames_s):
        raise DecodeError(
            name_of(source),
            f"{_described(span)} begins beyond the end of the video, at {float(track_end_s + start_s):.3f} s",
        )
    begin_s = min(begin_s + TOLERANCE_S, (begin_s + end_s) / 2)
    at_start = max((time_s for time_s in frames_s if time_s <= begin_s), default=frames_s[0])
    return [time_s for time_s in frames_s if time_s == at_start or at_start < time_s < end_s - TOLERANCE_S]


def _described(span: Span) -> str:
    return f"the span from {span.start_s:g} to {span.end_s:g} s"


def _shown(
    video: OpenVideo, begin_s: Fraction, end_s: Fraction, tick_s: Fraction
) -> tuple[list[Fraction], Fraction | None]:
    """Return when frames are shown, at least all from the one on the screen at `begin_s` to the last before `end_s`.

    Also returns the end of the track, if the packets were read to it.
    """
    codec = video.stream.codec_context
    is_counted, is_elementary = video.format_name in COUNTED_FORMATS, video.format_name in ELEMENTARY_FORMATS
    origin_tick = 0 if is_counted or is_elementary else video.origin_tick
    max_reorder = 0 if codec.name in INTRA_ONLY_CODECS else 2 * MAX_REORDER  # a frame may be two packets: fields
    if video.is_seekable:
        structure = structure_of(codec.name, codec.extradata)
        if structure is not None and structure.is_selective:
            max_reorder = structure.max_reorder
        first, last = (int(time_s // tick_s) + origin_tick for time_s in (begin_s, end_s))
        packets = in_index(video, first, last, structure).packets
    else:
        packets = (placed.packet for placed in from_beginning(video))
    ticks: set[int] = set()
    end_tick, num_later = origin_tick, 0
    for number, packet in enumerate(packet for packet in packets if packet.size and not packet.is_discard):
        tick, duration = packet.pts, video.duration_ticks(packet)
        if is_counted:
            tick, duration = number if packet.dts is None else packet.dts, 1
        elif is_elementary:
            tick, duration = number * video.frame_ticks, video.frame_ticks
        if tick is None:
            raise DecodeError(
                video.uri, "has frames without presentation timestamps, so its spans cannot be found: convert it to MP4"
            )
        ticks.add(tick)
        end_tick = max(end_tick, tick + duration)
        num_later += (tick - origin_tick) * tick_s >= end_s
        if num_later > max_reorder:
            return _seconds(ticks, origin_tick, tick_s), None
    if is_counted and ticks:
        end_tick = video.end_of_repeats(max(ticks))
    return _seconds(ticks, origin_tick, tick_s), (end_tick - origin_tick) * tick_s


def _seconds(ticks: set[int], origin_tick: int, tick_s: Fraction) -> list[Fraction]:
    return [(tick - origin_tick) * tick_s for tick in sorted(ticks)]
