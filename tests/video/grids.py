"""The grid of chunks that the tests of windows and decoding use."""

from microaction.video.windows import Span


def split_chunks(duration_us: int, chunk_us: int) -> list[Span]:
    """Return the chunks of [0, duration), ascending; the last one ends with the video."""
    return [Span(start, min(start + chunk_us, duration_us)) for start in range(0, duration_us, chunk_us)]
