"""Peak memory of decoding one minute, by the duration of the whole video.

`python -m tests.benchmarks.memory` writes videos of one minute to three hours and decodes the middle minute of each in
a process of its own.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from microaction.video import decode_chunk
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.benchmarks.timing import console
from tests.benchmarks.videos import write_long_video

MINUTES = (1, 10, 60, 180)
SIZE = (640, 360)


def peak_mebibytes(path: Path, minutes: int) -> float:
    """Return the peak resident memory of a process that decodes the middle minute of a video."""
    start_us = minutes // 2 * 60 * MICROSECONDS
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(path), str(start_us), str(minutes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def _decode(path: Path, start_us: int, minutes: int) -> None:
    span = Span(start_us, start_us + 60 * MICROSECONDS)
    windows = split_windows(minutes * 60 * MICROSECONDS, 2 * MICROSECONDS, MICROSECONDS, span)
    decode_chunk(path, span, windows)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB on Linux


def main() -> None:
    table = Table("video", "peak memory of decoding one minute", title=f"{SIZE[0]}×{SIZE[1]} H.264 in MP4")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in MINUTES:
            path = Path(folder) / "video.mp4"
            write_long_video(path, duration_s=minutes * 60, size=SIZE, loop_s=20)
            table.add_row(f"{minutes} min", f"{peak_mebibytes(path, minutes):.0f} MiB")
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _decode(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
