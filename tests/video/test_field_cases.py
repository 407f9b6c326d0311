"""Videos as people bring them along, made small: what a player shows of them is what is labeled.

The files in fieldcases/ are drawn; none is anybody's recording. Frame n of the gray ones has luma 20 + 2·n.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import microaction
from microaction.video import DecodeError, Framing, decode_chunk, decode_frames, probe
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows
from tests.archives import write_model
from tests.video.screens import STRIDE_US, WINDOW_US, check_screens, screens_of

FOLDER = Path(__file__).parent / "fieldcases"
FRAME_S = 1 / 25


@dataclass(frozen=True)
class Healthy:
    """A healthy video: how many frames, seconds and windows, and which gray frame is on the screen in each 1/25 s."""

    num_frames: int
    duration_s: float
    num_windows: int
    slots: Sequence[int | None] | None = tuple(range(100))
    start_s: float = 0
    size: tuple[int, int] = (96, 64)
    fps: int = 25


HEALTHY = {
    "calm_scene.mpg": Healthy(1000, 40, 39, slots=None, size=(160, 120)),
    "equal_times.webm": Healthy(1800, 60, 59, slots=None, fps=30),
    "CAMERA01.MOD": Healthy(100, 4, 3),
    "phone.3gp": Healthy(
        100, 4, 3, size=(144, 96)
    ),  # its container's pixels are 9:8, which players prefer to the stream's
    "lab.wmv": Healthy(100, 4, 3),
    "copied_to.avi": Healthy(100, 4, 3),
    "joined.ts": Healthy(200, 8, 7, slots=[*range(100), *range(100)]),
    "hundred_frames.ts": Healthy(100, 4, 3),
    "late_video.mp4": Healthy(100, 4, 3, start_s=3),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_videos_have_the_facts_players_show(name: str) -> None:
    info, truth = probe(FOLDER / name), HEALTHY[name]
    assert info.num_frames == truth.num_frames
    assert info.duration_s == pytest.approx(truth.duration_s, abs=FRAME_S / 4)
    assert info.fps == pytest.approx(truth.fps, rel=0.01)
    assert info.video_start_s == pytest.approx(truth.start_s, abs=FRAME_S / 4)
    assert (info.width, info.height, info.rotation, info.num_video_tracks) == (*truth.size, 0, 1)
    assert len(split_windows(microseconds(info.duration_s), WINDOW_US, STRIDE_US)) == truth.num_windows


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_videos_have_all_windows(name: str) -> None:
    screens, truth = screens_of(FOLDER / name, chunk_us=20_000_000), HEALTHY[name]
    assert not screens.damage
    assert not screens.missing
    assert len(screens.numbers) == truth.num_windows
    if truth.slots is not None:
        check_screens(screens, truth.slots)


@pytest.mark.parametrize("name", ["CAMERA01.MOD", "hundred_frames.ts", "joined.ts", "null_chunks.avi", "copied_to.avi"])
def test_short_chunks_show_the_same_frames(name: str) -> None:
    by_chunk, whole = screens_of(FOLDER / name), screens_of(FOLDER / name, chunk_us=60 * MICROSECONDS)
    assert by_chunk.windows == whole.windows
    assert by_chunk.numbers == whole.numbers


def test_of_equal_times_the_later_frame_is_shown() -> None:
    path = FOLDER / "equal_times.webm"
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = [frame.pts or 0 for frame in frames]
    equal = [index for index in range(1, len(times)) if times[index] == times[index - 1]]
    assert equal, "the file has frames with equal times"
    for later in equal:
        start_us = times[later] * 1000 + 5000
        window = Span(start_us, start_us + 10_000)
        chunk = decode_chunk(path, window, [window], num_segments=1, framing=Framing(64, 64))
        expected = Framing(64, 64).square(frames[later].to_ndarray(format="rgb24"))
        np.testing.assert_array_equal(chunk.frames_NHWC[0], expected)


def test_an_empty_chunk_repeats_the_frame_before() -> None:
    """No frames arrived from 1.24 to 2.44 s: 31 empty chunks."""
    path = FOLDER / "null_chunks.avi"
    info, screens = probe(path), screens_of(path)
    assert info.duration_s == pytest.approx(4.0)
    assert [window.end_s for window in screens.windows] == [2.0, 3.0, 4.0]
    assert not screens.missing
    check_screens(screens, null_chunk_slots())


def null_chunk_slots() -> list[int]:
    """Return which frame of `null_chunks.avi` each of its chunks shows."""
    data = (FOLDER / "null_chunks.avi").read_bytes()
    position, slots, shown = data.index(b"movi") + 4, list[int](), 0
    while data[position : position + 4] == b"00dc":
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        shown = len(slots) if size else shown
        slots.append(shown)
        position += 8 + size + size % 2
    assert len(slots) == 100
    return slots


def test_frames_of_an_avi_copied_from_mp4_are_all_there() -> None:
    frames = decode_frames(FOLDER / "copied_to.avi", [0, 50, 99])
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([4, 121, 235], abs=2)


def test_labels_of_a_late_picture_are_on_the_files_timeline(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = write_model(tmp_path_factory.mktemp("model"), gain=400)
    labeled = microaction.label_video(FOLDER / "late_video.mp4", model, start_threshold=0.02, people="off")
    spans = zip(labeled.windows["start_s"].to_pylist(), labeled.windows["end_s"].to_pylist(), strict=True)
    assert list(spans) == [(3.0, 5.0), (4.0, 6.0), (5.0, 7.0)]
    assert labeled.failures.num_rows == 0
    events = labeled.events.to_pylist()
    assert events
    assert all(3.0 <= event["start_s"] < event["end_s"] <= 7.0 for event in events)


def test_both_joined_recordings_are_labeled(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = write_model(tmp_path_factory.mktemp("model"))
    labeled = microaction.label_video(FOLDER / "joined.ts", model, people="off")
    assert labeled.windows["start_s"].to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert labeled.failures.num_rows == 0


def test_a_mirrored_video_is_shown_as_by_players() -> None:
    path = FOLDER / "mirrored.mp4"
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (640, 480, 0)
    assert quarters(decode_frames(path, [0])[0]) == ["red", "blue", "green", "red"]
    window = Span(0, MICROSECONDS)
    chunk = decode_chunk(path, window, [window], num_segments=1, framing=Framing(48, 48))
    assert quarters(chunk.frames_NHWC[0]) == ["red", "blue", "green", "red"]


def quarters(frame_HWC: np.ndarray) -> list[str]:
    """Return the colors of a frame's quarters: top left, top right, bottom left, bottom right."""
    H, W = frame_HWC.shape[:2]
    pixels = [frame_HWC[H * row // 4, W * column // 4] for row in (1, 3) for column in (1, 3)]
    return [("red", "green", "blue")[int(pixel.argmax())] for pixel in pixels]


def test_wide_pixels_are_shown_wide() -> None:
    path = FOLDER / "wide_pixels.mp4"
    info = probe(path)
    assert (info.width, info.height, info.num_frames) == (1920, 1080, 10)
    assert decode_frames(path, [3]).shape == (1, 1080, 1920, 3)
    assert decode_frames(path, [3], short_side=90).shape == (1, 90, 160, 3)
    window = Span(0, 400_000)
    framing = Framing(64, 64, fit="pad")
    chunk = decode_chunk(path, window, [window], num_segments=1, framing=framing)
    assert (chunk.frames_NHWC[0].max(axis=(1, 2)) > 60).sum() == 36, "16:9 in a square of 64 pixels"


def test_sound_with_a_cover_is_called_that() -> None:
    with pytest.raises(DecodeError) as caught:
        probe(FOLDER / "sound_with_cover.mp4")
    assert "contains no video, only audio" in caught.value.reason
    assert "cover picture" in caught.value.reason


def test_an_edit_list_that_repeats_is_read() -> None:
    """An edit list plays the first second twice; FFmpeg shows 46 of the 50 frames, players two seconds."""
    path = FOLDER / "edit_repeats.mp4"
    info = probe(path)
    assert 1.84 <= info.duration_s <= 2.0
    duration_us = microseconds(info.duration_s)
    windows = split_windows(duration_us, WINDOW_US, STRIDE_US)
    assert windows == [Span(0, duration_us)]
    chunk = decode_chunk(path, windows[0], windows, framing=Framing(48, 40), seek_points=info.seek_points)
    assert chunk.window_frames_WT.min() >= 0
    assert not chunk.damage


@pytest.mark.parametrize("name", ["CAMERA01.MOD", "phone.3gp", "lab.wmv"])
def test_the_content_decides_and_not_the_ending(name: str, tmp_path: Path) -> None:
    renamed = Path(shutil.copy(FOLDER / name, tmp_path / "video.mp4"))
    assert probe(renamed).num_frames == 100
    assert probe(renamed).fps == Fraction(25)
