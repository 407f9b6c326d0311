from pathlib import Path

from tests.benchmarks.memory import peak_mebibytes
from tests.benchmarks.videos import write_long_video


def test_decoding_a_minute_takes_no_more_memory_of_three_hours_than_of_one_minute(tmp_path: Path) -> None:
    peaks = {}
    for minutes in (1, 180):
        path = tmp_path / "video.mp4"
        write_long_video(path, duration_s=minutes * 60, size=(640, 360), loop_s=20)
        peaks[minutes] = peak_mebibytes(path, minutes)
    assert peaks[180] < 1.05 * peaks[1]
