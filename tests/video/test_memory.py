from pathlib import Path

import pytest

from tests.benchmarks.memory import peak_mebibytes
from tests.benchmarks.videos import write_long_video


@pytest.mark.slow
def test_memory_does_not_grow_with_the_videos_length(tmp_path: Path) -> None:
    """`python -m tests.benchmarks.memory` measures up to three hours."""
    peaks = {}
    for minutes in (1, 60):
        path = tmp_path / "video.mp4"
        write_long_video(path, duration_s=minutes * 60, size=(640, 360), loop_s=20)
        peaks[minutes] = peak_mebibytes(path, minutes)
    assert peaks[60] < 1.05 * peaks[1]
