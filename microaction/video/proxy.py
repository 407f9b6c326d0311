"""Proxies: clips re-encoded at a small size with intra frames only, so that reading a few frames decodes only those.

Training decodes each clip once per epoch; from a proxy that costs a fraction. Proxies are Motion JPEG in MP4 at the
codec's finest usual quantizer: of the codecs tried it decodes fastest, keeps frames of any size, and reaches a luma
PSNR of about 43 dB (`make bench`).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from microaction.errors import DecodeError
from microaction.video.decoding.av_backend import frames_at_indices
from microaction.video.decoding.sources import Source, name_of
from microaction.video.framing import Crop, Framing, Region
from microaction.video.probing import frame_times, probe
from microaction.video.sampling import segment_indices

PROXY_CODEC, PROXY_PIXELS, PROXY_QUANTIZER = "mjpeg", "yuvj420p", 2
PROXY_TIME_BASE = Fraction(1, 90_000)
NUM_COMPARED = 8  # frames of each clip that are decoded again and compared
LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Proxy:
    """`data` is an MP4 file; `psnr_db` compares the luma of eight of its frames with the frames that were encoded."""

    data: bytes
    num_frames: int
    width: int
    height: int
    psnr_db: float


def encode_proxy(source: Source, short_side: int, region: Region | Crop | None = None) -> Proxy:
    """Encode every frame of a clip at this short side (in pixels), or the region or crop of every frame if one is given.

    Rotation is applied, presentation timestamps are kept, audio is dropped. Raises `DecodeError` if the clip is not
    complete, or if the proxy cannot be decoded again.
    """
    num_frames = probe(source).num_frames
    times_s = frame_times(source)
    if len(times_s) != num_frames:
        raise DecodeError(name_of(source), f"has {num_frames} frames but presentation timestamps for {len(times_s)}")
    compared = sorted(set(segment_indices(num_frames, NUM_COMPARED).tolist()))
    originals: list[np.ndarray] = []

    def frames() -> Iterator[np.ndarray]:
        images = frames_at_indices(source, range(num_frames), Framing(short_side, region=region).whole)
        for index, image in enumerate(images):
            if index in compared:
                originals.append(image)
            yield image

    data = _encode(frames(), times_s)
    copies = list(frames_at_indices(data, compared, lambda image: image))
    height, width = originals[0].shape[:2]
    return Proxy(data, num_frames, width, height, _luma_psnr_db(originals, copies))


def _encode(frames: Iterator[np.ndarray], times_s: list[Fraction]) -> bytes:
    file = io.BytesIO()
    options = {"qmin": str(PROXY_QUANTIZER), "qmax": str(PROXY_QUANTIZER)}
    with av.open(file, "w", format="mp4", options={"video_track_timescale": "90000"}) as container:
        stream = container.add_stream(PROXY_CODEC, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = PROXY_PIXELS
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = PROXY_TIME_BASE
        for index, (image, time_s) in enumerate(zip(frames, times_s, strict=True)):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s / PROXY_TIME_BASE), PROXY_TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _luma_psnr_db(originals: list[np.ndarray], copies: list[np.ndarray]) -> float:
    squares = [
        ((a.astype(np.float32) - b) @ np.array(LUMA_WEIGHTS, np.float32)) ** 2
        for a, b in zip(originals, copies, strict=True)
    ]
    return float(10 * np.log10(255**2 / max(float(np.mean(squares)), 1e-9)))
