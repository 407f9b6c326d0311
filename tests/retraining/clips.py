"""Clips of one color each, which a small network learns to classify within seconds."""

from pathlib import Path
from typing import Any

import av
import numpy as np

COLORS = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)]
RECIPE = {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}
TINY: dict[str, Any] = {
    "model": {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.0},
    "preprocessing": {"short_side": 40, "crop": 32},
}


def list_clips(subjects: str, *, takes: int = 2) -> list[str]:
    """Return correct lines of a list: a clip of each color for each subject and take."""
    return [
        f"{subject}_{take}{label}.mp4 {label}\n"
        for subject in subjects
        for take in range(takes)
        for label in range(len(COLORS))
    ]


def write_clips(folder: Path, subjects: str, *, takes: int = 2) -> list[str]:
    """Write the clips into `folder/videos`; return the lines of `list_clips`."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    lines = list_clips(subjects, takes=takes)
    for line in lines:
        name, label = line.split()
        subject, take = name[0], int(name[2])
        _write_video(folder / "videos" / name, np.array(COLORS[int(label)]) + 3 * take + ord(subject) % 7)
    return lines


def _write_video(path: Path, color: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        image = np.ascontiguousarray(np.broadcast_to(color.astype(np.uint8), (48, 64, 3)))
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def mislabeled(lines: list[str]) -> list[str]:
    """Return the lines with wrong labels."""
    return [f"{name} {(int(label) + 1) % len(COLORS)}\n" for name, label in (line.split() for line in lines)]
