import io
import pickle
from fractions import Fraction
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from microaction.video import DecodeError, Framing, decode_chunk, decode_frames, probe, segment_indices
from microaction.video.decode import BackendName, window_times
from microaction.video.decoding.sources import Source
from microaction.video.transforms import center_crop
from microaction.video.windows import Span, microseconds, split_windows
from tests.video.grids import split_chunks
from tests.videos import number_of, write_video

BACKENDS: list[BackendName] = list(get_args(BackendName))
S = 1_000_000


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> BackendName:
    if request.param == "decord":
        pytest.importorskip("decord", reason="decord is built for Linux on x86-64 only")
    if request.param == "torchcodec":
        pytest.importorskip("torchcodec", reason="torchcodec is an optional extra", exc_type=ImportError)
    name: BackendName = request.param
    return name


def test_frames_have_the_order_and_repeats_of_the_indices(counted_video: Path, backend: BackendName) -> None:
    indices = [119, 0, 7, 7, 60, 24, 23]
    frames = decode_frames(counted_video, indices, backend=backend)
    assert frames.dtype == np.uint8
    assert frames.shape == (7, 64, 96, 3)
    assert [number_of(frame) for frame in frames] == indices


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_indices_count_in_presentation_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"b{suffix}"
    write_video(path, num_frames=50, options={"bf": "3", "b-pyramid": "normal", "g": "12"})
    assert [number_of(frame) for frame in decode_frames(path, range(50))] == list(range(50))


def test_sources_are_paths_uris_bytes_or_open_files(counted_video: Path, backend: BackendName) -> None:
    data = counted_video.read_bytes()
    with open(counted_video, "rb") as file:
        sources: list[Source] = [
            counted_video,
            str(counted_video),
            f"file://{counted_video}",
            data,
            io.BytesIO(data),
            file,
        ]
        for source in sources:
            assert [number_of(f) for f in decode_frames(source, [5, 2], backend=backend)] == [5, 2]
        assert not file.closed, "the caller closes its own file"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, rotation: int, backend: BackendName) -> None:
    """The bright corner is stored upper left and moves clockwise."""
    write_video(tmp_path / "r.mp4", num_frames=4, rotation=rotation)
    frame = decode_frames(tmp_path / "r.mp4", [2], backend=backend)[0]
    assert frame.shape[:2] == ((64, 96) if rotation == 180 else (96, 64))
    corners = {0: frame[2, 2], 90: frame[2, -3], 180: frame[-3, -3], 270: frame[-3, 2]}
    assert [degrees for degrees, pixel in corners.items() if pixel.mean() > 200] == [rotation]


def test_backends_give_the_same_pixels(counted_video: Path, shared: Path, backend: BackendName) -> None:
    for path in (counted_video, *sorted((shared / "data/clips").iterdir())):
        if backend == "torchcodec" and path.suffix == ".avi":
            with pytest.raises(DecodeError, match="numbers the frames of AVI files differently; use backend='av'"):
                decode_frames(path, [0], backend=backend)
            continue
        ours, theirs = (decode_frames(path, [0, 31, 8], 256, name) for name in ("av", backend))
        np.testing.assert_array_equal(ours, theirs)


def test_short_side_resizes(counted_video: Path, backend: BackendName) -> None:
    assert decode_frames(counted_video, [0], 32, backend).shape == (1, 32, 48, 3)


def test_errors_name_the_missing_frame(counted_video: Path, backend: BackendName) -> None:
    with pytest.raises(DecodeError, match=r"counted\.mp4: frame 120 was requested, but .*120"):
        decode_frames(counted_video, [3, 120], backend=backend)
    with pytest.raises(ValueError, match=r"index \(-1\) must be ≥ 0"):
        decode_frames(counted_video, [-1], backend=backend)
    with pytest.raises(ValueError, match="at least one frame"):
        decode_frames(counted_video, [], backend=backend)


def test_an_unknown_backend_lists_the_known_ones(counted_video: Path) -> None:
    with pytest.raises(ValueError, match=r"'opencv'.*auto, av, decord, torchcodec"):
        decode_frames(counted_video, [0], backend="opencv")  # type: ignore[arg-type]


def test_a_decode_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("s3://b/v.mp4", "the file is empty")))
    assert (str(error), error.reason) == ("s3://b/v.mp4: the file is empty", "the file is empty")


def chunk_numbers(path: Path, windows: list[Span], num_segments: int = 8) -> list[list[int]]:
    span = Span(windows[0].start_us, windows[-1].end_us)
    chunk = decode_chunk(path, span, windows, num_segments=num_segments, framing=Framing(64, 64))
    numbers = np.array([number_of(frame) for frame in chunk.frames_NHWC])
    assert len(set(numbers.tolist())) == len(numbers), "each frame once"
    return [row.tolist() for row in numbers[chunk.window_frames_WT]]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_windows_have_the_frames_of_the_references_rule(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    write_video(path, num_frames=150, options={"bf": "0"} if suffix == ".avi" else None)
    windows = split_windows(5 * S, 2 * S, S)
    expected = [(segment_indices(60) + window.start_us * 30 // S).tolist() for window in windows]
    assert chunk_numbers(path, windows) == expected


def test_the_chunk_length_does_not_change_windows(counted_video: Path) -> None:
    duration = 4 * S
    whole = chunk_numbers(counted_video, split_windows(duration, 1_300_000, 700_000))
    for chunk_us in (700_000, 1 * S, 1_900_000, 3 * S):
        by_chunk = []
        for chunk in split_chunks(duration, chunk_us):
            windows = split_windows(duration, 1_300_000, 700_000, chunk)
            by_chunk += chunk_numbers(counted_video, windows) if windows else []
        assert by_chunk == whole


def test_a_short_video_is_one_window_with_repeats(tmp_path: Path) -> None:
    write_video(tmp_path / "s.mp4", num_frames=5)
    windows = split_windows(microseconds(5 / 30), 2 * S, S)
    assert chunk_numbers(tmp_path / "s.mp4", windows) == [segment_indices(5).tolist()]


def test_a_variable_rate_takes_the_frame_on_the_screen(tmp_path: Path) -> None:
    # Ten frames of a tenth of a second each, one of a whole second, ten more.
    durations = [3] * 10 + [30] + [3] * 10
    write_video(tmp_path / "v.mp4", num_frames=21, durations=durations)
    starts_s = np.cumsum([0, *durations])[:-1] / 30
    windows = [Span(0, 2 * S), Span(500_000, 2_500_000), Span(1_000_000, 3_000_000)]
    expected = [
        [int(np.searchsorted(starts_s, float(time_s), side="right")) - 1 for time_s in window_times(window, 8)]
        for window in windows
    ]
    assert chunk_numbers(tmp_path / "v.mp4", windows) == expected
    assert expected[0].count(10) == 4


def test_window_times_are_midpoints_of_equal_parts() -> None:
    assert window_times(Span(1 * S, 3 * S), 4) == [Fraction(5, 4), Fraction(7, 4), Fraction(9, 4), Fraction(11, 4)]


def test_a_chunk_is_framed_for_the_model(counted_video: Path) -> None:
    chunk = decode_chunk(counted_video, Span(0, 2 * S), [Span(0, 2 * S)], framing=Framing(48, 40))
    frames = decode_frames(counted_video, segment_indices(60).tolist(), 48)
    np.testing.assert_array_equal(chunk.frames_NHWC[chunk.window_frames_WT[0]], center_crop(frames, 40))


def test_data_that_ends_before_its_index_is_an_error(tmp_path: Path) -> None:
    """A file whose index comes first, cut short: probing relies on the index, decoding must not."""
    path = tmp_path / "f.mp4"
    write_video(path, num_frames=150, options={"g": "30"}, faststart=True)
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    path.write_bytes(path.read_bytes()[: positions[100]])
    duration = microseconds(probe(path).duration_s)
    assert duration == 5 * S
    framing = Framing(64, 64)
    assert decode_chunk(path, Span(0, S), [Span(0, 2 * S)], framing=framing).frames_NHWC.shape[0] == 8
    with pytest.raises(DecodeError, match=r"cut short|damaged"):
        decode_chunk(path, Span(3 * S, 5 * S), [Span(3 * S, 5 * S)], framing=framing)
