"""Decoding with torchcodec, an optional extra: on the CPU, or on the GPU's decoder (NVDEC) if one is available."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.formats import COUNTED_FORMATS, SNIFF_BYTES, container_format
from microaction.video.decoding.sources import Source, name_of, open_source
from microaction.video.probing import probe


def frames_at_indices(
    source: Source, indices: Sequence[int], transform: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield the transformed RGB frames [H, W, 3] at ascending, distinct `indices`, counted in presentation order.

    Raises `DecodeError`, and `RuntimeError` if torchcodec or the FFmpeg libraries that it needs are not installed.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise RuntimeError(
            "torchcodec cannot be loaded: pip install 'microaction[torchcodec]', and install FFmpeg's shared libraries"
        ) from error
    uri = name_of(source)
    info = probe(source)  # also refuses files that are not videos before another library sees them
    if indices and indices[-1] >= info.num_frames:
        raise DecodeError(uri, f"frame {indices[-1]} was requested, but the video has {info.num_frames}")
    file = open_source(source, uri)
    data = file.read()
    if file is not source:
        file.close()
    if container_format(data[:SNIFF_BYTES]) in COUNTED_FORMATS:
        raise DecodeError(uri, "torchcodec numbers the frames of AVI files differently; use backend='av'")
    try:
        decoder = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1, device=_device(), seek_mode="exact")
        for index in indices:
            yield transform(decoder.get_frame_at(index).data.cpu().numpy())
    except (RuntimeError, IndexError, ValueError) as error:
        raise DecodeError(uri, f"torchcodec cannot decode it: {str(error).splitlines()[0]}") from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
