"""Thousands of damaged files: none crashes or hangs, and no frame is passed that is not the file's own."""

from collections import Counter
from collections.abc import Iterator

import pytest

from microaction.video.sandbox import Limits, Sandbox
from tests.video import damage

CASES_PER_VIDEO = 400
VIDEOS = [
    ("h264-b-pyramid", ".mp4"),
    ("h264-b-pyramid", ".mkv"),
    ("h264-b-pyramid", ".ts"),
    ("h264-open-gop", ".mp4"),
    ("h264-no-b", ".avi"),
    ("h264-interlaced", ".mkv"),
    ("hevc-open-gop", ".mp4"),
    ("hevc", ".mkv"),
    ("hevc", ".ts"),
    ("vp9", ".mkv"),
    ("av1", ".mp4"),
    ("mpeg2", ".ts"),
    ("mpeg4-no-b", ".avi"),
    ("mjpeg", ".mp4"),
    ("mjpeg", ".avi"),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(Limits(time_s=10, memory_bytes=2 << 30))
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize(("coding", "suffix"), VIDEOS)
def test_damage_is_found_or_does_not_matter(coding: str, suffix: str, sandbox: Sandbox) -> None:
    total: Counter[str] = Counter()
    for number in range(CASES_PER_VIDEO):
        # A crash or a hang raises here.
        counts = sandbox.call(f"{coding}{suffix} number {number}", damage.outcome, coding, suffix, number)
        assert not counts["silently wrong"], f"number {number}: {counts}"
        total.update(counts)
    print(f"{coding}{suffix}: {dict(total)}")
    assert total["right"] > CASES_PER_VIDEO, "a decoder that refused everything would be safe too"
    assert total["refused"] > CASES_PER_VIDEO
