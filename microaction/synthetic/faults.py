"""Files that archives hold besides good videos: truncated ones, and ones with audio only."""

import os
from pathlib import Path

import av
import numpy as np

SAMPLE_RATE_HZ = 44_100
TONE_HZ = 220.0


def write_truncated(path: str | os.PathLike[str], original: str | os.PathLike[str], fraction: float = 0.6) -> None:
    """Copy the first `fraction` of a file's bytes, as an interrupted download or upload leaves them."""
    data = Path(original).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * fraction)])


def write_audio_only(path: str | os.PathLike[str], duration_s: float = 3.0) -> None:
    """Write a container, chosen by the path's extension, with a tone in AAC and no video."""
    times_s = np.arange(int(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone = (0.1 * np.sin(2 * np.pi * TONE_HZ * times_s)).astype(np.float32)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None, :], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
