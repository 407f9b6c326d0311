"""Clips of one color each, which a small network learns to tell apart within seconds."""

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


def write_clips(folder: Path, subjects: str, *, takes: int = 2) -> list[str]:
    """Write a clip of each color for each subject and take; return the lines of their list."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    lines = []
    for subject in subjects:
        for take in range(takes):
            for label, color in enumerate(COLORS):
                name = f"{subject}_{take}{label}.mp4"
                _write_color(folder / "videos" / name, np.array(color) + 3 * take + ord(subject) % 7)
                lines.append(f"{name} {label}\n")
    return lines


def mislabeled(lines: list[str]) -> list[str]:
    """Return the lines of a list with the labels of other actions."""
    return [f"{name} {(int(label) + 1) % len(COLORS)}\n" for name, label in (line.split() for line in lines)]


def _write_color(path: Path, color: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            image = np.broadcast_to(color.astype(np.uint8), (48, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
