"""What is decoded selectively is, bit for bit, what decoding everything gives."""

import os
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microaction.video import Framing, decode_chunk, decode_frames, probe
from microaction.video.decode import window_times
from microaction.video.decoding import av_backend
from microaction.video.decoding.container import VideoPacket
from microaction.video.decoding.group import GroupDecoder
from microaction.video.windows import Span, microseconds, split_chunks, split_windows
from tests.video import matrix

FRAMING = Framing(matrix.HEIGHT, matrix.HEIGHT)
CASES = [
    (coding, suffix, timing)
    for coding in matrix.CODINGS
    for suffix in matrix.FORMATS
    for timing in matrix.TIMINGS
    if matrix.exists(coding, suffix, timing)
]


class Everything:
    """All frames of a video by FFmpeg's plainest way, and when each is shown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames = list(container.decode(stream))
            assert stream.time_base is not None
            origin = stream.start_time or 0
            if path.suffix == ".avi":
                self.starts_s = [Fraction(f.dts or 0, matrix.FPS) for f in frames]
            else:
                self.starts_s = [(f.pts - origin) * stream.time_base for f in frames if f.pts is not None]
        self.images = [np.rot90(f.to_ndarray(format="rgb24"), k=f.rotation // 90) for f in frames]
        assert len(self.starts_s) == len(self.images)

    def on_screen(self, time_s: Fraction) -> np.ndarray:
        return FRAMING.square(np.ascontiguousarray(self.images[max(bisect_right(self.starts_s, time_s) - 1, 0)]))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Everything]:
    @lru_cache(maxsize=1)
    def make(coding: str, suffix: str, timing: str) -> Everything:
        path = tmp_path_factory.mktemp("matrix") / f"{coding}-{timing}{suffix}".replace(" ", "-")
        matrix.write(path, coding, timing)
        return Everything(path)

    return make


@pytest.mark.parametrize(("coding", "suffix", "timing"), CASES)
def test_window_grids(coding: str, suffix: str, timing: str, everything: Callable[[str, str, str], Everything]) -> None:
    video = everything(coding, suffix, timing)
    duration = microseconds(probe(video.path).duration_s)
    for window_us, stride_us, chunk_us in ((400_000, 200_000, 700_000), (1_000_000, 900_000, 10_000_000)):
        for chunk in split_chunks(duration, chunk_us):
            windows = split_windows(duration, window_us, stride_us, chunk)
            if not windows:
                continue
            found = decode_chunk(video.path, chunk, windows, num_segments=5, framing=FRAMING)
            assert not found.damage
            assert len(found.frames_NHWC) == len(np.unique(found.window_frames_WT))
            for index_T, window in zip(found.window_frames_WT, windows, strict=True):
                for row, time_s in zip(index_T, window_times(window, 5), strict=True):
                    np.testing.assert_array_equal(found.frames_NHWC[row], video.on_screen(time_s))


@pytest.mark.parametrize(("coding", "suffix", "timing"), CASES)
def test_any_frames(coding: str, suffix: str, timing: str, everything: Callable[[str, str, str], Everything]) -> None:
    video = everything(coding, suffix, timing)
    num_frames = len(video.images)
    assert num_frames >= 40

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, num_frames - 1), min_size=1, max_size=12))
    def check(indices: list[int]) -> None:
        for index, frame in zip(indices, decode_frames(video.path, indices), strict=True):
            np.testing.assert_array_equal(frame, video.images[index])

    check()


@pytest.mark.parametrize(("coding", "suffix", "timing"), CASES)
def test_any_moments_far_apart(
    coding: str,
    suffix: str,
    timing: str,
    everything: Callable[[str, str, str], Everything],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every gap sought over, and with groups that do not fit into the queue."""
    monkeypatch.setattr("microaction.video.decoding.av_backend.SEEK_GAP_S", 0.3)
    monkeypatch.setattr("microaction.video.decoding.selective.MAX_QUEUED_BYTES", 3000)
    video = everything(coding, suffix, timing)
    duration = microseconds(probe(video.path).duration_s)
    rng = np.random.default_rng(1)
    for _ in range(6):
        starts = sorted(set(rng.integers(0, duration - 1, rng.integers(1, 5)).tolist()))
        windows = [Span(start, min(start + int(rng.integers(1, 200_000)), duration)) for start in starts]
        found = decode_chunk(video.path, Span(0, duration), windows, num_segments=2, framing=FRAMING)
        for index_T, window in zip(found.window_frames_WT, windows, strict=True):
            for row, time_s in zip(index_T, window_times(window, 2), strict=True):
                np.testing.assert_array_equal(found.frames_NHWC[row], video.on_screen(time_s))


SELECTIVE = [
    (coding, suffix)
    for coding in matrix.CODINGS
    for suffix in (".mp4", ".mkv")
    if coding.startswith(("h264", "hevc", "vp9", "mjpeg")) and coding not in ("h264-interlaced",)
]


@pytest.mark.parametrize(("coding", "suffix"), SELECTIVE)
def test_less_than_everything_is_decoded_where_that_is_exact(
    coding: str, suffix: str, everything: Callable[[str, str, str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = everything(coding, suffix, "constant")
    fed: list[int] = []
    feed = GroupDecoder.feed

    def counted(self: GroupDecoder, packet: VideoPacket, *, is_wanted: bool) -> object:
        fed.append(packet.pts or 0)
        return feed(self, packet, is_wanted=is_wanted)

    monkeypatch.setattr(GroupDecoder, "feed", counted)
    monkeypatch.setattr(av_backend, "SequentialPass", None)
    frames = decode_frames(video.path, [1, 31, 61])
    for frame, index in zip(frames, (1, 31, 61), strict=True):
        np.testing.assert_array_equal(frame, video.images[index])
    assert len(fed) == len(set(fed)), "no packet is decoded twice"
    expected = {
        "mjpeg": 3,
        "h264-intra": 3,
        "h264-b-pyramid": 26,
        "hevc": 24,
        "vp9": 30,
    }
    assert len(fed) <= expected.get(coding, 63)


@pytest.mark.parametrize("coding", matrix.CODINGS)
def test_no_encoder_changes_how_the_tests_are_scheduled(tmp_path: Path, coding: str) -> None:
    before = os.sched_getscheduler(0)
    matrix.write(tmp_path / "video.mkv", coding, "constant")
    assert os.sched_getscheduler(0) == before
