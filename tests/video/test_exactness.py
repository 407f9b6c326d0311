"""Selective decoding returns, bit for bit, the frames of a full decode: over a matrix of codecs, containers and timings.

Representative videos are tested by `make test`, all others by `make test-slow`.
"""

import os
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microaction.video import Framing, decode_chunk, decode_frames, probe
from microaction.video.decode import window_times
from microaction.video.decoding import av_backend
from microaction.video.decoding.gop import GopDecoder
from microaction.video.decoding.timeline import VideoPacket
from microaction.video.windows import Span, microseconds, split_windows
from tests.video import matrix
from tests.video.grids import split_chunks
from tests.video.matrix import Case

FRAMING = Framing(matrix.HEIGHT, matrix.HEIGHT)
# One for each path through the decoder: selective by every kind of packet parser, sequential with and without seeking,
# sequential because of a structure that selective decoding does not cover, frames that are only counted; every timing.
REPRESENTATIVE = {
    Case("h264-b-pyramid", ".mp4", "constant"),
    Case("h264-b-pyramid", ".mp4", "edit list"),
    Case("h264-b-pyramid", ".mp4", "fragmented"),
    Case("h264-b-pyramid", ".mp4", "rotation"),
    Case("h264-b-pyramid", ".mkv", "variable"),
    Case("h264-b-pyramid", ".ts", "constant"),
    Case("h264-b-pyramid", ".ts", "variable"),
    Case("h264-no-b", ".mp4", "variable"),
    Case("h264-no-b", ".avi", "constant"),
    Case("h264-open-gop", ".mp4", "B-frames first"),
    Case("h264-open-gop", ".mkv", "constant"),
    Case("h264-open-gop", ".ts", "B-frames first"),
    Case("h264-long-gop", ".mp4", "constant"),
    Case("h264-refresh", ".mp4", "constant"),
    Case("h264-10-bit", ".mkv", "constant"),
    Case("h264-interlaced", ".mp4", "constant"),
    Case("h264-weighted", ".mp4", "variable"),
    Case("hevc", ".mp4", "constant"),
    Case("hevc", ".mkv", "rotation"),
    Case("hevc", ".ts", "constant"),
    Case("hevc-open-gop", ".mp4", "B-frames first"),
    Case("hevc-open-gop", ".mkv", "variable"),
    Case("hevc-layers", ".mp4", "constant"),
    Case("vp9", ".mkv", "constant"),
    Case("vp9", ".mp4", "variable"),
    Case("av1", ".mp4", "constant"),
    Case("av1", ".mkv", "variable"),
    Case("mpeg2", ".ts", "B-frames first"),
    Case("mpeg2", ".mp4", "constant"),
    Case("mpeg4", ".mp4", "variable"),
    Case("mpeg4", ".mkv", "B-frames first"),
    Case("mpeg4-no-b", ".avi", "variable"),
    Case("mjpeg", ".mp4", "constant"),
    Case("mjpeg", ".avi", "constant"),
    Case("mpeg1", ".mpg", "constant"),
    Case("mpeg2", ".mpg", "constant"),
    Case("mpeg2", ".mxf", "constant"),
    Case("vp8", ".mkv", "constant"),
    Case("wmv2", ".wmv", "constant"),
    Case("h264-b-pyramid", ".flv", "constant"),
    Case("h264-b-pyramid", ".m2ts", "constant"),
}
CODINGS_WITH_SELECTIVE_DECODING = [
    coding
    for coding in matrix.CODINGS
    if coding.startswith(("h264", "hevc", "vp9", "mjpeg")) and coding != "h264-interlaced"
]
MAX_PACKETS_OF_3_FRAMES = {"mjpeg": 3, "h264-intra": 3, "h264-b-pyramid": 26, "hevc": 24, "vp9": 30}  # of 70


def test_representative_videos_are_in_the_matrix() -> None:
    assert set(matrix.CASES) >= REPRESENTATIVE
    assert {case.timing for case in REPRESENTATIVE} == set(matrix.TIMINGS)
    assert {case.suffix for case in REPRESENTATIVE} == set(matrix.FORMATS)


class FullDecode:
    """All frames of a video, decoded in FFmpeg's simplest way, and when each is shown."""

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
        """Return the framed image on the screen at a time."""
        return FRAMING.square(np.ascontiguousarray(self.images[max(bisect_right(self.starts_s, time_s) - 1, 0)]))


def _parameter(case: Case) -> object:
    return pytest.param(case, id=case.file_name, marks=() if case in REPRESENTATIVE else pytest.mark.slow)


# The scope makes pytest run all tests of one video before those of the next, so that each is decoded in full once.
@pytest.fixture(scope="module", params=map(_parameter, matrix.CASES))
def video(request: pytest.FixtureRequest, matrix_videos: matrix.VideoCache) -> FullDecode:
    return FullDecode(matrix_videos.path(request.param))


def test_window_grids_are_exact(video: FullDecode) -> None:
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


def test_frames_by_number_are_exact(video: FullDecode) -> None:
    num_frames = len(video.images)
    assert num_frames >= 40

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, num_frames - 1), min_size=1, max_size=12))
    def check(indices: list[int]) -> None:
        for index, frame in zip(indices, decode_frames(video.path, indices), strict=True):
            np.testing.assert_array_equal(frame, video.images[index])

    check()


def test_distant_windows_are_exact(video: FullDecode, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seek over every gap, with GOPs that do not fit into the queue, and from every random access point of a stream."""
    monkeypatch.setattr("microaction.video.probing.SEEK_POINT_INTERVAL_S", 0)
    monkeypatch.setattr("microaction.video.decoding.av_backend.SEEK_GAP_S", 0.3)
    monkeypatch.setattr("microaction.video.decoding.selective.MAX_QUEUED_BYTES", 3000)
    info = probe(video.path)
    duration = microseconds(info.duration_s)
    rng = np.random.default_rng(1)
    for _ in range(6):
        starts = sorted(set(rng.integers(0, duration - 1, rng.integers(1, 5)).tolist()))
        windows = [Span(start, min(start + int(rng.integers(1, 200_000)), duration)) for start in starts]
        span = Span(0, duration)
        found = decode_chunk(video.path, span, windows, num_segments=2, framing=FRAMING, seek_points=info.seek_points)
        for index_T, window in zip(found.window_frames_WT, windows, strict=True):
            for row, time_s in zip(index_T, window_times(window, 2), strict=True):
                np.testing.assert_array_equal(found.frames_NHWC[row], video.on_screen(time_s))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "coding",
    [
        pytest.param(coding, marks=() if coding in MAX_PACKETS_OF_3_FRAMES else pytest.mark.slow)
        for coding in CODINGS_WITH_SELECTIVE_DECODING
    ],
)
def test_packets_that_nothing_needs_are_skipped(
    coding: str, suffix: str, matrix_videos: matrix.VideoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = FullDecode(matrix_videos.path(Case(coding, suffix, "constant")))
    fed: list[int] = []
    feed = GopDecoder.feed

    def counted(self: GopDecoder, packet: VideoPacket, *, is_wanted: bool) -> object:
        fed.append(packet.pts or 0)
        return feed(self, packet, is_wanted=is_wanted)

    monkeypatch.setattr(GopDecoder, "feed", counted)
    monkeypatch.setattr(av_backend, "SequentialPass", None)
    frames = decode_frames(video.path, [1, 31, 61])
    for frame, index in zip(frames, (1, 31, 61), strict=True):
        np.testing.assert_array_equal(frame, video.images[index])
    assert len(fed) == len(set(fed)), "no packet is decoded twice"
    assert len(fed) <= MAX_PACKETS_OF_3_FRAMES.get(coding, 63)


def test_encoders_leave_the_scheduling_policy_alone(tmp_path: Path) -> None:
    """Of all encoders this one changes it; `matrix.VideoCache` asserts the same of each video that it encodes."""
    before = os.sched_getscheduler(0)
    matrix.write(tmp_path / "video.mkv", "av1", "constant")
    assert os.sched_getscheduler(0) == before
