"""Limits on what a file may declare. Beyond them it counts as damaged, or as an attack, before anything is allocated
for it.
"""

from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from microaction.errors import DecodeError

MAX_PIXELS = 8192 * 8192
MAX_DURATION_S = 48 * 3600
MAX_FRAMES = MAX_DURATION_S * 240


def check_limits(container: InputContainer, stream: VideoStream, uri: str) -> None:
    """Raise `DecodeError` if the stream declares larger frames, a longer duration or more frames than the limits."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise DecodeError(uri, f"its frames of {width}×{height} are larger than {MAX_PIXELS} pixels")
    stream_duration_s = (stream.duration or 0) * (stream.time_base or 0)
    duration_s = float(max(stream_duration_s, Fraction(container.duration or 0, av.time_base)))
    if duration_s > MAX_DURATION_S:
        raise DecodeError(
            uri,
            f"declares a duration of {duration_s / 3600:.0f} hours, more than the limit of {MAX_DURATION_S // 3600}",
        )
    num_frames = max(stream.frames, len(stream.index_entries))
    if num_frames > MAX_FRAMES:
        raise DecodeError(uri, f"declares {num_frames} frames, more than the limit of {MAX_FRAMES}")
