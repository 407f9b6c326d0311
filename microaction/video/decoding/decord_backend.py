"""Decoding with decord 0.6.0, which the reference used. For clips only: it holds the whole file and knows no time spans."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.sources import Source, name_of, open_source
from microaction.video.probing import probe

FAULT_TOLERANCE = 1  # decord counts a frame that it replaced by a neighbor; one such frame is an error


def frames_at_indices(
    source: Source, indices: Sequence[int], transform: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield the transformed RGB frames [H, W, 3] at ascending, distinct `indices`, counted in presentation order.

    Raises `DecodeError`, also if the video ends before the last of them: decord 0.6.0 would never return from a request for a
    frame that the container declares and does not hold.
    """
    try:
        import decord
    except ImportError as error:
        raise RuntimeError("decord is not installed: it exists for Linux on x86-64; use backend='av'") from error
    uri = name_of(source)
    info = probe(source)
    if indices and indices[-1] >= info.num_frames:
        raise DecodeError(uri, f"frame {indices[-1]} was requested, but the video has {info.num_frames}")
    file = open_source(source, uri)
    try:
        reader = decord.VideoReader(file, num_threads=1, fault_tol=FAULT_TOLERANCE)
        if len(reader) != info.num_frames:
            raise DecodeError(uri, f"decord counts {len(reader)} frames instead of {info.num_frames}; use backend='av'")
        for index in indices:
            yield transform(reader[index].asnumpy())  # decord has rotated it already
    except decord.DECORDError as error:
        raise DecodeError(uri, f"decord cannot decode it: {str(error).splitlines()[0]}") from error
    finally:
        if file is not source:
            file.close()
