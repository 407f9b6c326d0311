"""Windows a second on one core: decord's `get_batch` per window, as most labelling scripts do it, beside `decode_chunk`.

`python -m tests.benchmarks.decoding` makes its own video (1920×1080, H.264 with B-frames, 250-frame groups of pictures),
alternates the ways on it, and prints medians.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from microaction.video import decode_chunk, decode_frames, probe, segment_indices
from microaction.video.transforms import center_crop
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows

DURATION_S, FPS, SIZE = 20, 30, (1920, 1080)
WINDOW_US, STRIDE_US = 2 * MICROSECONDS, MICROSECONDS
NUM_SEGMENTS, SHORT_SIDE, CROP = 8, 256, 224
ROUNDS = 3


def make_video(path: Path) -> None:
    """A soft pattern that drifts under grain, so that motion and residuals cost about what filmed video costs."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    pattern = rng.integers(40, 200, (height // 40, width // 20, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)
    grain = rng.integers(0, 12, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "bf": "3", "g": "250"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(DURATION_S * FPS):
            left = index * 2 % width
            image = pattern[:height, left : left + width] + np.roll(grain, index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))


def decord_per_window(path: Path, windows: list[Span]) -> None:
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    indices = segment_indices(WINDOW_US * FPS // MICROSECONDS, NUM_SEGMENTS)
    for window in windows:
        reader.get_batch((indices + window.start_us * FPS // MICROSECONDS).tolist()).asnumpy()


def one_pass(path: Path, windows: list[Span]) -> None:
    decode_chunk(path, Span(0, DURATION_S * MICROSECONDS), windows)


def windows_per_second(way: Callable[[Path, list[Span]], None], path: Path, windows: list[Span]) -> float:
    started = time.perf_counter()
    way(path, windows)
    return len(windows) / (time.perf_counter() - started)


def check_same_pixels(path: Path, window: Span) -> None:
    """Both ways must see the same frames, or the comparison is of nothing."""
    indices = segment_indices(WINDOW_US * FPS // MICROSECONDS, NUM_SEGMENTS) + window.start_us * FPS // MICROSECONDS
    chunk = decode_chunk(path, window, [window])
    theirs = center_crop(decode_frames(path, indices.tolist(), SHORT_SIDE, "decord"), CROP)
    assert np.array_equal(chunk.frames_NHWC[chunk.window_frames_WT[0]], theirs)


def main() -> None:
    ways = {"decord, get_batch per window": decord_per_window, "decode_chunk, one pass": one_pass}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        make_video(path)
        windows = split_windows(microseconds(probe(path).duration_s), WINDOW_US, STRIDE_US)
        check_same_pixels(path, windows[3])
        results: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                results[name].append(windows_per_second(way, path, windows))
    table = Table("way", "windows per core-second", "times decord", title=f"{SIZE[0]}×{SIZE[1]} H.264, {DURATION_S} s")
    medians = {name: statistics.median(values) for name, values in results.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        table.add_row(name, f"{median:.1f}", f"{median / base:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
