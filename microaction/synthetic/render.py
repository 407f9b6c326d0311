"""Renders a subject, a room and performances to an H.264 file. Equal arguments give equal bytes.

Shapes: H height, W width, C = 3 (RGB).
"""

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from microaction.skeletons import Skeleton as Keypoints
from microaction.synthetic.figure import draw_figure
from microaction.synthetic.keypoints import detected
from microaction.synthetic.motions import MOTIONS
from microaction.synthetic.performance import Idler, Performance, act
from microaction.synthetic.room import Room
from microaction.synthetic.skeleton import Skeleton
from microaction.synthetic.subject import Subject

MIN_CLIP_FRAMES, MAX_CLIP_FRAMES = 48, 70  # MA-52: about two seconds
# Clips are cut around their actions, as in MA-52.
MAX_START_S = 0.15  # an action starts at most this long before or after its clip does
MAX_REST_S = 0.1  # and ends at most this long before it
KEYFRAME_EVERY_S = 2.0
B_FRAMES = 2
# One thread: with more, the bytes depend on the computer. No mbtree: with it, x264 gave 2 to 5 different files in 5 to 12
# encodings of equal frames (160×192, PyAV 18.1); without it, 160 encodings gave the same file.
DETERMINISTIC_ENCODING = {"threads": "1", "x264-params": "mbtree=0"}


class VideoSize(NamedTuple):
    """Width and height in pixels, both even, as 4:2:0 chroma requires."""

    width: int
    height: int


DEFAULT_SIZE = VideoSize(160, 192)  # the aspect ratio of MA-52's 1080×1296
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
    """Write a clip of about two seconds in which the subject performs the action (0..51) and no other."""
    rng = np.random.default_rng([seed, subject_seed, 0xC1])
    performance, num_frames = _clip(action, fps, rng)
    frames = draw_frames(Subject.from_seed(subject_seed), [performance], num_frames, rng, size=size, fps=fps)
    encode_video(path, frames, size, fps)


def clip_keypoints(
    *, subject_seed: int, action: int, seed: int, size: tuple[int, int] = DEFAULT_SIZE, fps: int = DEFAULT_FPS
) -> Keypoints:
    """Return the keypoints in the clip that `render_clip` draws of the same arguments, with a detector's errors."""
    rng = np.random.default_rng([seed, subject_seed, 0xC1])
    performance, num_frames = _clip(action, fps, rng)
    return drawn_keypoints(Subject.from_seed(subject_seed), [performance], num_frames, rng, size=size, fps=fps)


def _clip(action: int, fps: int, rng: np.random.Generator) -> tuple[Performance, int]:
    """Return what happens in a clip, and its number of frames."""
    check_action(action)
    duration_s = int(rng.integers(MIN_CLIP_FRAMES, MAX_CLIP_FRAMES + 1)) / 30
    start_s = float(rng.uniform(-MAX_START_S, MAX_START_S))
    end_s = duration_s + float(rng.uniform(-MAX_REST_S, 1.0))  # most clips end before the action does
    return Performance.random(action, start_s, end_s, rng), round(duration_s * fps)


def draw_frames(
    subject: Subject,
    performances: Sequence[Performance],
    num_frames: int,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    fps: int,
) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] (uint8). Performances must be ordered by their start; those at the same time must move different
    limbs."""
    for room, skeleton, time_s in _scenes(subject, performances, num_frames, rng, size=size, fps=fps):
        canvas = room.canvas(time_s)
        draw_figure(canvas, skeleton)
        yield room.expose(canvas, time_s)


def drawn_keypoints(
    subject: Subject,
    performances: Sequence[Performance],
    num_frames: int,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    fps: int,
) -> Keypoints:
    """Return the keypoints in the frames that `draw_frames` yields for the same arguments, with a detector's errors."""
    scenes = _scenes(subject, performances, num_frames, rng, size=size, fps=fps)
    errors = rng.spawn(1)[0]
    return detected(((room.camera(time_s), skeleton) for room, skeleton, time_s in scenes), size, errors)


def _scenes(
    subject: Subject,
    performances: Sequence[Performance],
    num_frames: int,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    fps: int,
) -> Iterator[tuple[Room, Skeleton, float]]:
    """Yield the room, the person's joints, and the time in seconds of each frame."""
    idler = Idler.random(rng)
    room = Room(*check_size(size), rng)
    upcoming = list(reversed(performances))
    current: list[Performance] = []
    for frame_index in range(num_frames):
        time_s = frame_index / fps
        current = [performance for performance in current if performance.end_s > time_s]
        # Where nothing runs, the next performance is on stage: glasses that it needs are worn before it starts.
        while upcoming and (not current or upcoming[-1].start_s <= time_s):
            performance = upcoming.pop()
            if performance.end_s > time_s:
                current.append(performance)
        posture = idler.posture(time_s)
        for performance in current:
            act(posture, performance, time_s)
        yield room, Skeleton(subject, posture), time_s


def encode_video(path: str | os.PathLike[str], frames: Iterator[np.ndarray], size: tuple[int, int], fps: int) -> None:
    """Write frames as H.264 (4:2:0, B-frames) in MP4, under a temporary name until the file is complete."""
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part.mp4")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height = check_size(size)
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            stream.options = {"preset": "veryfast", "crf": "23", "bf": str(B_FRAMES), **DETERMINISTIC_ENCODING}
            stream.codec_context.gop_size = round(KEYFRAME_EVERY_S * fps)
            for frame_HWC in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
            container.mux(stream.encode())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_size(size: tuple[int, int]) -> VideoSize:
    """Return the size. Raises `ValueError` for one that 4:2:0 chroma does not allow, or that is too small."""
    width, height = size
    if min(width, height) < 32 or width % 2 or height % 2:
        raise ValueError(
            f"size ({width}×{height}) must be even and at least 32 in both dimensions; the default is 160×192"
        )
    return VideoSize(width, height)


def check_action(action: int) -> None:
    """Raise `ValueError` unless `action` is a label."""
    if action not in MOTIONS:
        raise ValueError(
            f"action ({action}) must be a label in 0..{len(MOTIONS) - 1}; see microaction.taxonomy.ACTIONS"
        )


def checked_actions(actions: Sequence[int] | None) -> tuple[int, ...]:
    """Return the actions, or all for None. Raises `ValueError` if there is none, or one that is no label."""
    chosen = tuple(MOTIONS) if actions is None else tuple(actions)
    if not chosen:
        raise ValueError("actions must hold at least one action; pass None for all of them")
    for action in chosen:
        check_action(action)
    return chosen
