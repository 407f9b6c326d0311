"""From a subject, a room and performances to an H.264 file: equal arguments give equal bytes.

Shapes: H height, W width, C = 3 (RGB).
"""

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from microaction.synthetic.figure import draw_figure
from microaction.synthetic.motions import MOTIONS
from microaction.synthetic.performance import Idler, Performance, act
from microaction.synthetic.room import Room
from microaction.synthetic.skeleton import Skeleton
from microaction.synthetic.subject import Subject

MIN_CLIP_FRAMES, MAX_CLIP_FRAMES = 48, 70  # MA-52: about two seconds
MAX_START_S = 0.15  # a clip is cut around its action: at most so long before and after it
MAX_REST_S = 0.1
KEYFRAME_EVERY_S = 2.0
B_FRAMES = 2
# One thread: more make the bytes depend on the machine. Without mbtree: with it, x264 gave 2 to 5 different files in 5
# to 12 encodings of equal pictures (160×192, PyAV 18.1); without it, 160 encodings gave the same file.
SAME_BYTES_EVERY_TIME = {"threads": "1", "x264-params": "mbtree=0"}


class VideoSize(NamedTuple):
    """Width and height in pixels; both even, as 4:2:0 chroma asks."""

    width: int
    height: int


DEFAULT_SIZE = VideoSize(160, 192)  # MA-52's 1080×1296, small
DEFAULT_FPS = 30


def render_clip(
    path: str | os.PathLike[str],
    *,
    subject_seed: int,
    action: int,
    seed: int,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
) -> None:
    """Writes a clip of about two seconds in which the subject does the action (0..51) and nothing else."""
    check_action(action)
    rng = np.random.default_rng([seed, subject_seed, 0xC1])
    duration_s = int(rng.integers(MIN_CLIP_FRAMES, MAX_CLIP_FRAMES + 1)) / 30
    start_s = float(rng.uniform(-MAX_START_S, MAX_START_S))
    end_s = duration_s + float(rng.uniform(-MAX_REST_S, 1.0))  # mostly cut before the action is over
    performance = Performance.drawn(action, start_s, end_s, rng)
    frames = draw_frames(Subject.from_seed(subject_seed), [performance], round(duration_s * fps), rng, size, fps)
    encode_video(path, frames, size, fps)


def draw_frames(
    subject: Subject,
    performances: Sequence[Performance],
    num_frames: int,
    rng: np.random.Generator,
    size: tuple[int, int],
    fps: int,
) -> Iterator[np.ndarray]:
    """Yields the frames [H, W, 3] uint8. Performances are in order of time and do not overlap."""
    idler = Idler.drawn(rng)
    room = Room(*check_size(size), rng)
    upcoming = list(reversed(performances))
    for frame_index in range(num_frames):
        time_s = frame_index / fps
        while upcoming and upcoming[-1].end_s <= time_s:
            upcoming.pop()
        posture = idler.posture(time_s)
        if upcoming:
            act(posture, upcoming[-1], time_s)
        canvas = room.canvas(time_s)
        draw_figure(canvas, Skeleton(subject, posture))
        yield room.expose(canvas, time_s)


def encode_video(path: str | os.PathLike[str], frames: Iterator[np.ndarray], size: tuple[int, int], fps: int) -> None:
    """Writes frames as H.264 (4:2:0, B-frames) in MP4, under a temporary name until the file is whole."""
    target = Path(path)
    unfinished = target.with_name(f".{target.stem}.{os.getpid()}.part.mp4")
    try:
        with av.open(str(unfinished), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height = check_size(size)
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            stream.options = {"preset": "veryfast", "crf": "23", "bf": str(B_FRAMES), **SAME_BYTES_EVERY_TIME}
            stream.codec_context.gop_size = round(KEYFRAME_EVERY_S * fps)
            for frame_HWC in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
            container.mux(stream.encode())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def check_size(size: tuple[int, int]) -> VideoSize:
    """The size, or ValueError when 4:2:0 cannot hold it."""
    width, height = size
    if min(width, height) < 32 or width % 2 or height % 2:
        raise ValueError(f"size ({width}×{height}) must be even and at least 32 both ways; the default is 160×192")
    return VideoSize(width, height)


def check_action(action: int) -> None:
    """ValueError when there is no such action."""
    if action not in MOTIONS:
        raise ValueError(
            f"action ({action}) must be a label in 0..{len(MOTIONS) - 1}; see microaction.taxonomy.ACTIONS"
        )
