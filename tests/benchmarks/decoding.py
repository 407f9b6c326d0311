"""Windows per core-second: `decode_chunk` compared with other ways to read video.

`python -m tests.benchmarks.decoding [FOLDER]` writes a ten-minute 1080p video (H.264 with B-frames, GOPs of 250
frames), decodes a minute from its middle in every way, and then the clips of FOLDER, if given.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from microaction.video import Framing, decode_chunk, decode_frames, probe
from microaction.video.decode import window_times
from microaction.video.transforms import resize_short_side
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows
from tests.benchmarks.timing import console, cpu_name, medians, print_rates
from tests.benchmarks.videos import FPS, write_long_video

DURATION_S = 600
SPAN = Span(240 * MICROSECONDS, 300 * MICROSECONDS)  # starts with a GOP
WINDOW_US, STRIDE_US, NUM_SEGMENTS = 2 * MICROSECONDS, MICROSECONDS, 8
FRAMING = Framing()
ROUNDS = 3
OURS = "decode_chunk"


class Workload:
    """A span of a video at a constant rate, and the windows that start in it."""

    def __init__(self, path: Path, span: Span) -> None:
        info = probe(path)
        self.path, self.span, self.fps = path, span, info.fps
        self.windows = split_windows(microseconds(info.duration_s), WINDOW_US, STRIDE_US, span)
        times = (window_times(window, NUM_SEGMENTS) for window in self.windows)
        self.window_indices = [[int(time_s * self.fps) for time_s in each] for each in times]
        self.indices = sorted({index for indices in self.window_indices for index in indices})

    def ours(self) -> None:
        """Decode the chunk."""
        decode_chunk(self.path, self.span, self.windows, num_segments=NUM_SEGMENTS, framing=FRAMING)

    def decord_per_window(self) -> None:
        """Call `get_batch` for every window, as most labeling scripts do."""
        reader = self._decord()
        for indices in self.window_indices:
            reader.get_batch(indices).asnumpy()

    def decord_one_pass(self) -> None:
        """Read every frame once, resized inside the decoder: decord's best case."""
        info = probe(self.path)
        scale = FRAMING.short_side / min(info.width, info.height)
        reader = self._decord(width=round(info.width * scale), height=round(info.height * scale))
        reader.get_batch(self.indices).asnumpy()

    def _decord(self, **size: int) -> Any:
        import decord

        return decord.VideoReader(str(self.path), num_threads=1, **size)

    def pyav_everything(self) -> None:
        """Decode every frame; convert and resize the wanted ones."""
        wanted = set(self.indices)
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            assert stream.time_base is not None
            container.seek(int(Fraction(self.span.start_us, MICROSECONDS) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                index = round((frame.pts or 0) * stream.time_base * self.fps)
                if index in wanted:
                    resize_short_side(frame.to_ndarray(format="rgb24"), FRAMING.short_side)
                if index >= self.indices[-1]:
                    break

    def ffmpeg_to_null(self) -> None:
        """Decode every frame and discard it."""
        start, length = self.span.start_s, self.indices[-1] / float(self.fps) - self.span.start_s
        command = ["ffmpeg", "-v", "error", "-threads", "1", "-ss", str(start), "-t", f"{length:.3f}"]
        subprocess.run([*command, "-i", str(self.path), "-map", "0:v", "-f", "null", "-"], check=True)

    def ways(self) -> dict[str, Callable[[], object]]:
        """Return the ways to compare, by name."""
        ways: dict[str, Callable[[], object]] = {
            OURS: self.ours,
            "decord, get_batch per window": self.decord_per_window,
            "decord, one pass": self.decord_one_pass,
            "PyAV, every frame": self.pyav_everything,
        }
        return ways | ({"ffmpeg -threads 1 -f null": self.ffmpeg_to_null} if shutil.which("ffmpeg") else {})

    def check(self) -> None:
        """Check that all ways decode the same frames; otherwise the comparison means nothing."""
        chunk = decode_chunk(self.path, self.span, self.windows[:1], num_segments=NUM_SEGMENTS, framing=FRAMING)
        for backend in ("av", "decord"):
            theirs = decode_frames(self.path, self.window_indices[0], None, backend, transform=FRAMING.square)
            assert np.array_equal(chunk.frames_NHWC[chunk.window_frames_WT[0]], theirs)


def compare_on_a_long_video() -> None:
    """Compare on a minute from the middle of a long video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "interview.mp4"
        write_long_video(path, duration_s=DURATION_S)
        workload = Workload(path, SPAN)
        workload.check()
        title = f"A minute of {DURATION_S // 60} minutes of 1920×1080 H.264, {FPS} fps, B-frames · {cpu_name()}"
        print_rates(title, "windows", len(workload.windows), medians(workload.ways(), ROUNDS), OURS)


def compare_on_clips(folder: Path) -> None:
    """Compare on every clip of a folder."""
    for path in sorted(folder.iterdir()):
        info = probe(path)
        workload = Workload(path, Span(0, microseconds(info.duration_s)))
        workload.check()
        title = f"{path.name}: {info.width}×{info.height} {info.codec}, {info.duration_s:.1f} s · {cpu_name()}"
        print_rates(title, "windows", len(workload.windows), medians(workload.ways(), 2 * ROUNDS + 1), OURS)


def main() -> None:
    compare_on_a_long_video()
    if len(sys.argv) > 1:
        compare_on_clips(Path(sys.argv[1]))
    else:
        console.print("pass a folder of clips to compare on those too")


if __name__ == "__main__":
    main()
