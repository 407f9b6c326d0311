"""Decoding with decord 0.6.0, which the reference used. Clips only: it holds a whole file and knows no time spans."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.container import Source, name_of, open_source
from microaction.video.probing import probe

FAULT_TOLERANCE = 1  # decord counts a frame that it replaced by a neighbour; one such frame is an error


def frames_at_indices(
    source: Source, indices: Sequence[int], transform: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """RGB frames [H, W, 3] at the ascending, distinct `indices`, counted in presentation order, each as `transform` makes it.

    Raises `DecodeError`, also where the video ends before the last of them: asked for a frame that a container promises
    and does not hold, decord 0.6.0 would never return.
    """
    try:
        import decord
    except ImportError as error:
        raise RuntimeError("decord is not installed: it exists for Linux on x86-64; use backend='av'") from error
    uri = name_of(source)
    info = probe(source)
    if indices and indices[-1] >= info.num_frames:
        raise DecodeError(uri, f"frame {indices[-1]} was asked for and there are {info.num_frames}")
    file = open_source(source, uri)
    try:
        reader = decord.VideoReader(file, num_threads=1, fault_tol=FAULT_TOLERANCE)
        if len(reader) != info.num_frames:
            raise DecodeError(
                uri, f"decord counts {len(reader)} frames where there are {info.num_frames}; use backend='av'"
            )
        for index in indices:
            yield transform(reader[index].asnumpy())  # decord has turned it already
    except decord.DECORDError as error:
        raise DecodeError(uri, f"decord cannot decode it: {str(error).splitlines()[0]}") from error
    finally:
        if file is not source:
            file.close()
