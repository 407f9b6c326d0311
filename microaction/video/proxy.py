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
    """`data` is an MP4 file; `psnr_db` compares the luma of eight of its frames with the frames that were encoded.

    It begins with its first frame: that is `video_start_s` of the source's timeline, which sound may begin.
    """

    data: bytes
    num_frames: int
    width: int
    height: int
    psnr_db: float
    video_start_s: float = 0.0


def encode_proxy(source: Source, short_side: int, region: Region | Crop | None = None) -> Proxy:
    """Encode every frame of a clip at this short side (in pixels), or the region or crop of every frame if one is given.

    Rotation is applied, audio is dropped. Presentation timestamps are kept, from the start of the video track, to 1/90000 s.
    Raises `DecodeError` if the clip is not complete, if it has none that can be kept, or if the proxy cannot be decoded again.
    """
    video = probe(source)
    num_frames, times_s = video.num_frames, frame_times(source)
    if len(times_s) != num_frames:
        raise DecodeError(name_of(source), f"has {num_frames} frames but presentation timestamps for {len(times_s)}")
    ticks = [round(time_s / PROXY_TIME_BASE) for time_s in times_s]
    repeated = next((index for index in range(1, num_frames) if ticks[index] <= ticks[index - 1]), None)
    if repeated is not None:
        raise DecodeError(
            name_of(source),
            f"two of its frames have the same presentation timestamp, {float(times_s[repeated]):.3f} s, which an MP4 file cannot "
            "hold",
        )
    compared = sorted(set(segment_indices(num_frames, NUM_COMPARED).tolist()))
    originals: list[np.ndarray] = []

    def frames() -> Iterator[np.ndarray]:
        images = frames_at_indices(source, range(num_frames), Framing(short_side, region=region).whole)
        for index, image in enumerate(images):
            if index in compared:
                originals.append(image)
            yield image

    data = _encode(frames(), ticks, round(video.duration_s / PROXY_TIME_BASE))
    copies = list(frames_at_indices(data, compared, lambda image: image))
    height, width = originals[0].shape[:2]
    return Proxy(data, num_frames, width, height, _luma_psnr_db(originals, copies), video.video_start_s)


def _encode(frames: Iterator[np.ndarray], ticks: list[int], end_tick: int) -> bytes:
    """Return an MP4 file of the frames, shown from these ticks on; the last one up to `end_tick`."""
    file = io.BytesIO()
    options = {"qmin": str(PROXY_QUANTIZER), "qmax": str(PROXY_QUANTIZER)}
    with av.open(file, "w", format="mp4", options={"video_track_timescale": "90000"}) as container:
        stream = container.add_stream(PROXY_CODEC, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = PROXY_PIXELS
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = PROXY_TIME_BASE
        for index, (image, tick) in enumerate(zip(frames, ticks, strict=True)):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, PROXY_TIME_BASE
            for packet in stream.encode(frame):
                if tick == ticks[-1]:
                    packet.duration = max(1, end_tick - tick)
                container.mux(packet)
        container.mux(stream.encode(None))
    return file.getvalue()


def _luma_psnr_db(originals: list[np.ndarray], copies: list[np.ndarray]) -> float:
    squares = [
        ((a.astype(np.float32) - b) @ np.array(LUMA_WEIGHTS, np.float32)) ** 2
        for a, b in zip(originals, copies, strict=True)
    ]
    return float(10 * np.log10(255**2 / max(float(np.mean(squares)), 1e-9)))
