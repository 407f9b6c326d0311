"""Peak memory of decoding one minute, by the duration of the whole video; and of a chunk of 1080p, by the number of people.

`python -m tests.benchmarks.memory` writes videos of one minute to three hours and decodes the middle minute of each in
a process of its own; then a chunk of 1920×1080, for whole frames and for crops of people, and a part that is looked at.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from microaction.people import MoveNet, take_looks
from microaction.video import Framing, decode_chunk
from microaction.video.framing import Crop
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.benchmarks.timing import console
from tests.benchmarks.videos import write_long_video

MINUTES = (1, 10, 60, 180)
SIZE, FULL_SIZE = (640, 360), (1920, 1080)
CHUNK_S = 120
PEOPLE = {"whole frames": 0, "one person": 1, "two people": 2, "looks": -1}


def peak_mebibytes(path: Path, minutes: int) -> float:
    """Return the peak resident memory of a process that decodes the middle minute of a video."""
    start_us = minutes // 2 * 60 * MICROSECONDS
    return peak_of_span(path, Span(start_us, start_us + 60 * MICROSECONDS), 0)


def peak_of_span(path: Path, span: Span, num_people: int) -> float:
    """Return the peak resident memory of a process that decodes a span of a video, or looks at it if `num_people` is −1."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", json.dumps([str(path), *span, num_people])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def _decode(path: str, start_us: int, end_us: int, num_people: int) -> None:
    span = Span(start_us, end_us)
    windows = split_windows(end_us + 2 * MICROSECONDS, 2 * MICROSECONDS, MICROSECONDS, span)
    if num_people < 0:
        list(take_looks(path, span, MoveNet()))
    elif num_people == 0:
        decode_chunk(path, span, windows)
    else:
        crops = [Crop(900 * number, 0, 900, 1080, 0, 1920) for number in range(num_people)]
        framings = [framing for framing in map(framed, crops) for _ in windows]
        decode_chunk(path, span, windows * num_people, framings=framings)
    # Of this process alone: getrusage's maximum begins with that of the process that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(status["VmHWM"].split()[0])  # KiB


def framed(crop: Crop) -> Framing:
    """Return the framing of a person."""
    return Framing(region=crop)


def main() -> None:
    """Print both tables."""
    table = Table("video", "peak memory of decoding one minute", title=f"{SIZE[0]}×{SIZE[1]} H.264 in MP4")
    by_people = Table("", "peak memory of a chunk", title=f"{FULL_SIZE[0]}×{FULL_SIZE[1]} H.264 in MP4")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        for minutes in MINUTES:
            write_long_video(path, duration_s=minutes * 60, size=SIZE, loop_s=20)
            table.add_row(f"{minutes} min", f"{peak_mebibytes(path, minutes):.0f} MiB")
        write_long_video(path, duration_s=2 * CHUNK_S, size=FULL_SIZE, loop_s=20)
        for name, num_people in PEOPLE.items():
            end_us = CHUNK_S * MICROSECONDS // max(num_people, 1)  # as the plan cuts chunks of several people
            peak = peak_of_span(path, Span(0, end_us), num_people)
            by_people.add_row(name, f"{peak:.0f} MiB")
    console.print(table)
    console.print(by_people)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _decode(*json.loads(sys.argv[1]))
    else:
        main()
