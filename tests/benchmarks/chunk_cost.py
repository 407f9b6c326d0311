"""What a one-minute chunk costs at the beginning, in the middle and at the end of a long video, by container.

`python -m tests.benchmarks.chunk_cost [--minutes 60]` writes each video by repeating a few encoded seconds. A chunk should
cost the same wherever it lies: the last at most 1.3 times the first.
"""

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from microaction.video import ChunkFrames, VideoInfo, decode_chunk, probe
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows
from tests.benchmarks.timing import console, core_seconds, cpu_name, medians
from tests.benchmarks.videos import write_long_video

MINUTE_US, LOOP_S, SIZE = 60 * MICROSECONDS, 20, (640, 360)
ROUNDS = 3
H264 = ("-c", "copy")
MPEG_4 = ("-c:v", "mpeg4", "-q:v", "4", "-bf", "0", "-g", "250")
MPEG_2 = ("-c:v", "mpeg2video", "-b:v", "1500k", "-maxrate", "4000k", "-bufsize", "1835k", "-bf", "2", "-g", "15")
MJPEG = ("-c:v", "mjpeg", "-q:v", "4")


@dataclass(frozen=True)
class Kind:
    """A container, how its few seconds are coded, and the muxer's options."""

    suffix: str
    coding: tuple[str, ...] = H264
    muxing: tuple[str, ...] = ()


KINDS = {
    "MP4, H.264": Kind(".mp4"),
    "MKV, H.264": Kind(".mkv"),
    "TS, H.264": Kind(".ts"),
    "M2TS, H.264": Kind(".m2ts", muxing=("-f", "mpegts", "-mpegts_m2ts_mode", "1")),
    "AVI, MPEG-4": Kind(".avi", MPEG_4),
    "AVI, MJPEG": Kind(".avi", MJPEG),
    "PS, MPEG-2": Kind(".mpg", MPEG_2, ("-f", "vob")),
}


def write_repeated(path: Path, loop: Path, kind: Kind, *, minutes: int) -> None:
    """Write a video of some minutes: `loop`, coded for the container, again and again."""
    few_seconds = loop.with_name("few-seconds.mkv")  # its times are exact, so that nothing is lost where it repeats
    ffmpeg = ["ffmpeg", "-y", "-v", "error"]
    subprocess.run([*ffmpeg, "-i", str(loop), "-an", *kind.coding, str(few_seconds)], check=True)
    repeats = str(minutes * 60 // LOOP_S - 1)
    copying = ["-stream_loop", repeats, "-i", str(few_seconds), "-c", "copy", "-t", str(minutes * 60)]
    subprocess.run([*ffmpeg, *copying, *kind.muxing, str(path)], check=True)
    few_seconds.unlink()


def decode_minute(path: Path, info: VideoInfo, start_us: int) -> ChunkFrames:
    """Decode the windows of the minute that begins at `start_us`."""
    duration_us = microseconds(info.duration_s)
    span = Span(start_us, min(start_us + MINUTE_US, duration_us))
    windows = split_windows(duration_us, 2 * MICROSECONDS, MICROSECONDS, span)
    chunk = decode_chunk(path, span, windows, seek_points=info.seek_points)
    assert not chunk.damage, f"{path.name} at {span.start_s} s: {chunk.damage}"
    return chunk


def measure(name: str, path: Path, table: Table, *, minutes: int) -> None:
    """Add a row for one container to the table."""
    infos: list[VideoInfo] = []
    catalog_s = core_seconds(lambda: infos.append(probe(path)))
    (info,) = infos
    assert abs(info.duration_s - 60 * minutes) < 1, f"{path.name} lasts {info.duration_s} s instead of {60 * minutes}"
    starts = {"first": 0, "middle": minutes // 2 * MINUTE_US, "last": (minutes - 1) * MINUTE_US}
    num_bytes: dict[str, int] = {}

    def decode(place: str) -> None:
        num_bytes[place] = decode_minute(path, info, starts[place]).num_bytes

    taken_s = medians({place: lambda place=place: decode(place) for place in starts}, ROUNDS)  # type: ignore[misc]
    table.add_row(
        name,
        *(f"{taken_s[place]:.2f}" for place in starts),
        f"{taken_s['last'] / taken_s['first']:.2f}",
        f"{catalog_s * 60 / minutes:.2f}",
        " / ".join(f"{num_bytes[place] / 2**20:.1f}" for place in starts),
        f"{path.stat().st_size / minutes / 2**20:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="duration of each video (default: 60)")
    minutes = parser.parse_args().minutes
    table = Table(
        "container",
        "first minute",
        "middle",
        "last",
        "last / first",
        "catalog per hour",
        "MiB read per chunk",
        "MiB of a minute",
        title=f"core-seconds of one-minute chunks of {minutes} minutes, {SIZE[0]}×{SIZE[1]}, {cpu_name()}",
    )
    with tempfile.TemporaryDirectory() as folder:
        loop = Path(folder) / "loop.mp4"
        write_long_video(loop, duration_s=LOOP_S, size=SIZE, loop_s=LOOP_S)
        for name, kind in KINDS.items():
            path = Path(folder) / f"long{kind.suffix}"
            write_repeated(path, loop, kind, minutes=minutes)
            measure(name, path, table, minutes=minutes)
            path.unlink()
    console.print(table)


if __name__ == "__main__":
    main()
