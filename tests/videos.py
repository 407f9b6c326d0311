"""Small videos whose pixels reveal each frame's number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Luma in video runs from 16 to 235. Frame i has FIRST_LUMA + i: levels are distinct before and after conversion.
FIRST_LUMA = 20
BLACK_LUMA, LUMA_LEVELS = 16, 219
WHITE_LUMA, NO_CHROMA = 235, 128


def number_of(frame_HWC: np.ndarray) -> int:
    """Return the number of a frame of a counted video, from the gray level of its center."""
    H, W = frame_HWC.shape[:2]
    gray = float(frame_HWC[H // 4 : -H // 4, W // 4 : -W // 4].mean())
    # +0.5: the conversion to RGB rounds down.
    return round((gray + 0.5) * LUMA_LEVELS / 255 + BLACK_LUMA) - FIRST_LUMA


def write_video(
    path: Path,
    *,
    num_frames: int,
    fps: Fraction | int = 30,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    durations: list[int] | None = None,
    with_audio: bool = False,
    faststart: bool = False,
) -> None:
    """Write counted frames with a bright upper left corner; `rotation` is the display matrix's, in degrees clockwise.

    `durations` are the frames' durations in 1/fps; by default all are 1. `faststart` puts the index of an MP4 first.
    """
    assert num_frames <= 200, "one gray level per frame"
    width, height = size
    lossless = {"libx264": {"qp": "0", "bf": "2", "g": "24"}, "mpeg4": {"qscale": "1"}}.get(codec, {})
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=lossless | (options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / Fraction(fps)
        stream.codec_context.time_base = 1 / Fraction(fps)
        if rotation:
            stream.set_display_rotation(-rotation)
        audio = container.add_stream("aac", rate=44_100, layout="mono") if with_audio else None
        pts = 0
        for index in range(num_frames):
            planes = np.full((height * 3 // 2, width), NO_CHROMA, np.uint8)
            planes[:height] = FIRST_LUMA + index
            planes[: height // 4, : width // 4] = WHITE_LUMA
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = pts, 1 / Fraction(fps)
            pts += 1 if durations is None else durations[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44_100, 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))


def write_late_video(path: Path, start_s: float, durations: list[int] | None = None) -> Path:
    """Write a counted video of 60 frames whose track starts about `start_s` after the sound."""
    write_video(path.with_suffix(".mp4"), num_frames=60, durations=durations, with_audio=True)
    with av.open(str(path.with_suffix(".mp4"))) as source, av.open(str(path), "w") as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None or packet.pts is None:
                continue
            if packet.stream.type == "video":
                assert packet.stream.time_base is not None
                shift = int(start_s / packet.stream.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            container.mux(packet)
    return path
