"""Long videos for benchmarks."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS, GOP = 25, 250


def write_long_video(path: Path, *, duration_s: int, size: tuple[int, int] = (1920, 1080), loop_s: int = 40) -> None:
    """Write H.264 with B-frames in GOPs of 250 frames. Only `loop_s` seconds are encoded and then repeated: decoders
    see no difference.

    A soft pattern drifts under grain, so that motion and residuals cost about as much as those of filmed video.
    """
    options = {"preset": "veryfast", "crf": "23", "bf": "3", "g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0"}
    loop = path.with_suffix(".loop.mp4")
    with av.open(str(loop), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for image in _drifting(*size, loop_s * FPS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    repeat(loop, path, times=duration_s // loop_s, loop_s=loop_s)
    loop.unlink()


def repeat(loop: Path, path: Path, *, times: int, loop_s: int) -> None:
    """Write the packets of a video several times in a row."""
    with av.open(str(path), "w") as container:
        stream = None
        for repetition in range(times):
            with av.open(str(loop), "r") as original:
                template = original.streams.video[0]
                stream = stream or container.add_stream_from_template(template)
                for packet in original.demux(template):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        shift = int(repetition * loop_s / (template.time_base or Fraction(1)))
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        container.mux(packet)


def _drifting(width: int, height: int, num_frames: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    pattern = rng.integers(40, 200, (height // 40 + 1, width // 20, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)
    grain = rng.integers(0, 12, (height, width, 3), dtype=np.uint8)
    for index in range(num_frames):
        left = index * 2 % width
        yield np.ascontiguousarray(pattern[:height, left : left + width] + np.roll(grain, index, axis=1))
