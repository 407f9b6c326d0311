"""Bytes and requests that decoding a minute of an hour takes from a remote file, by container.

`python -m tests.benchmarks.bytes` writes the hour of video and reads it as it would read object storage.
"""

import subprocess
import tempfile
from pathlib import Path

from rich.table import Table

from microaction.video import decode_chunk
from microaction.video.decoding.ranged import RangedReader
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.benchmarks.timing import console
from tests.benchmarks.videos import write_long_video

HOUR, MINUTE = 3600, 60
SPAN = Span(1800 * MICROSECONDS, 1860 * MICROSECONDS)


def main() -> None:
    windows = split_windows(HOUR * MICROSECONDS, 2 * MICROSECONDS, MICROSECONDS, SPAN)
    table = Table("container", "bytes of a minute", "fetched", "requests", "fetched / bytes of a minute")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.mp4"
        write_long_video(path, duration_s=HOUR, size=(1280, 720), loop_s=20)
        remuxed = {
            "MP4, index first": ("first.mp4", "-movflags", "faststart"),
            "MKV": ("hour.mkv",),
        }
        paths = {"MP4, index last": path}
        for title, (name, *options) in remuxed.items():
            paths[title] = Path(folder) / name
            command = ["ffmpeg", "-v", "error", "-i", str(path), "-c", "copy", *options, str(paths[title])]
            subprocess.run(command, check=True)
        for title, video in paths.items():
            size = video.stat().st_size
            with video.open("rb") as file:
                reader = RangedReader(file, size)
                decode_chunk(reader, SPAN, windows)
            minute_bytes = size * MINUTE / HOUR
            mebibytes = (f"{amount / 2**20:.2f} MiB" for amount in (minute_bytes, reader.num_bytes))
            table.add_row(title, *mebibytes, str(reader.num_requests), f"{reader.num_bytes / minute_bytes:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
