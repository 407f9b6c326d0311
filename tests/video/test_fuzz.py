"""Damaged files: none crashes or hangs the decoder, and every returned frame is the file's own."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from microaction.video.sandbox import Limits, Sandbox
from tests.video import damage
from tests.video.matrix import Case, VideoCache

# 25 to 30 ms each: those of all videos take less than a minute of one core, with `make chaos` five minutes.
CASES_PER_VIDEO = int(os.environ.get("FUZZ_CASES", "80"))  # `make chaos`: 500
FEW_CASES, CASES_PER_CALL = 20, 20
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
    ("mpeg2", ".mpg"),
    ("mpeg2", ".mxf"),
    ("vp8", ".mkv"),
    ("wmv2", ".wmv"),
    ("h264-b-pyramid", ".flv"),
    ("h264-b-pyramid", ".m2ts"),
]
FEW_VIDEOS = [("h264-b-pyramid", ".mp4"), ("h264-b-pyramid", ".ts"), ("hevc", ".mkv"), ("mjpeg", ".avi")]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # The time limit only ends a hang: no file here takes a noticeable part of it, however busy the node is.
    sandbox = Sandbox(Limits(time_s=300, memory_bytes=2 << 30))
    yield sandbox
    sandbox.close()


def check_damaged_copies(coding: str, suffix: str, num_cases: int, sandbox: Sandbox, videos: VideoCache) -> None:
    path = str(videos.path(Case(coding, suffix, "constant")))
    total: Counter[str] = Counter()
    for start in range(0, num_cases, CASES_PER_CALL):
        numbers = range(start, min(start + CASES_PER_CALL, num_cases))
        # A crash or a hang raises here.
        results = sandbox.call(f"{coding}{suffix}, {numbers}", damage.count_results, path, coding, numbers)
        for number, counts in results.items():
            assert not counts["wrong"] + counts["silent"], f"number {number}: {counts}"
            assert sum(counts.values()) == damage.NUM_WINDOWS, f"number {number}: {counts}"
            total.update(counts)
    print(f"{coding}{suffix}: {dict(total)}")
    assert total["exact"] > num_cases, "a decoder that refused everything would be safe too"
    assert total["refused"] > num_cases


@pytest.mark.parametrize(("coding", "suffix"), FEW_VIDEOS)
def test_a_little_damage_is_detected_or_harmless(
    coding: str, suffix: str, sandbox: Sandbox, matrix_videos: VideoCache
) -> None:
    check_damaged_copies(coding, suffix, FEW_CASES, sandbox, matrix_videos)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("coding", "suffix"), VIDEOS)
def test_damage_is_detected_or_harmless(coding: str, suffix: str, sandbox: Sandbox, matrix_videos: VideoCache) -> None:
    check_damaged_copies(coding, suffix, CASES_PER_VIDEO, sandbox, matrix_videos)
