"""Looks: the same ones whatever span is asked for, cheap where key frames are, and cuts on their frame."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from microaction.errors import DecodeError
from microaction.people import Detection, Look, SeenPerson, look_at, take_looks
from microaction.people.looks import changed_fraction, is_cut, thumbnail, torso_colors
from microaction.video import probe
from microaction.video.decoding.av_backend import frames_at_times
from microaction.video.keyframes import key_frames
from microaction.video.windows import MICROSECONDS, Span

FPS = 10
RED, GREEN = (200, 30, 30), (30, 160, 40)


class Nobody:
    """A detector that notes its turns and finds nobody."""

    digest = "nobody"

    def __init__(self) -> None:
        self.turns: list[int] = []

    def detect(self, frame_HWC: np.ndarray, turn: int = 0) -> list[Detection]:
        self.turns.append(turn)
        return []


def write_shots(path: Path, ends: list[int], *, gop: int, codec: str = "libx264") -> Path:
    """Write frames of alternating colors, with shots that end before the given frames, and no key frames but the regular ones."""
    with av.open(str(path), "w") as container:
        quiet = {"libx264": {"sc_threshold": "0"}, "libx265": {"x265-params": "scenecut=0:log-level=none"}}
        stream = container.add_stream(codec, rate=FPS, options=quiet.get(codec, {"sc_threshold": "1000000000"}))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = gop
        shot = 0
        for number in range(ends[-1]):
            shot += number >= ends[shot]
            frame_HWC = np.full((64, 96, 3), (RED, GREEN)[shot % 2], np.uint8)
            frame_HWC[8:16, number % 80 : number % 80 + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    return path


def looks_of(path: Path, step_s: int | None = None, detector: Nobody | None = None) -> list[Look]:
    info = probe(str(path))
    duration_us = round(info.duration_s * MICROSECONDS)
    step_us = duration_us if step_s is None else step_s * MICROSECONDS
    return [
        look
        for start_us in range(0, duration_us, step_us)
        for look in take_looks(
            str(path), Span(start_us, min(start_us + step_us, duration_us)), detector or Nobody(), info.seek_points
        )
    ]


def assert_same(one: list[Look], other: list[Look]) -> None:
    assert [(look.time_us, look.cut_us) for look in one] == [(look.time_us, look.cut_us) for look in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.thumbnail_hwC, b.thumbnail_hwC)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "libx264"), ("mkv", "libx265"), ("ts", "mpeg2video"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize("gop_s", [1, 5, 30])
def test_spans_that_follow_each_other_give_the_looks_of_the_whole(
    container: str, codec: str, gop_s: int, tmp_path: Path
) -> None:
    path = write_shots(tmp_path / f"a.{container}", [173, 301, 400], codec=codec, gop=gop_s * FPS)
    whole = looks_of(path)
    assert_same(looks_of(path, step_s=12), whole)
    times_s = [look.time_us / MICROSECONDS for look in whole]
    assert max(np.diff(times_s)) <= 24
    assert {int(time_s // 12) for time_s in times_s} == {0, 1, 2, 3}
    if gop_s == 1:
        assert [int(time_s // 2) for time_s in times_s] == list(range(20))
    cuts_us = [look.cut_us for look in whole if look.cut_us is not None]
    assert [round(cut_us / MICROSECONDS * FPS) for cut_us in cuts_us] == [173, 301]


def test_a_key_frame_is_the_frame_that_decoding_everything_gives(tmp_path: Path) -> None:
    path = write_shots(tmp_path / "a.mp4", [130], gop=7)
    found = list(key_frames(str(path), Span(0, 13 * MICROSECONDS), 2 * MICROSECONDS))
    assert [frame.time_us // (2 * MICROSECONDS) for frame in found] == list(range(7))
    times_s = [Fraction(frame.time_us, MICROSECONDS) for frame in found]
    exact = [target.image for target in frames_at_times(str(path), times_s, np.copy)]
    for frame, image in zip(found, exact, strict=True):
        np.testing.assert_array_equal(frame.frame_HWC, image)


def test_a_look_costs_one_detection(tmp_path: Path) -> None:
    detector = Nobody()
    looks = looks_of(write_shots(tmp_path / "a.mp4", [130, 260], gop=FPS), detector=detector)
    assert len(looks) == 13
    assert len(detector.turns) == 13


def test_spans_must_start_on_the_grid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must start at a multiple of 12000000"):
        next(take_looks(str(tmp_path / "a.mp4"), Span(5 * MICROSECONDS, 6 * MICROSECONDS), Nobody()))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DecodeError):
        list(take_looks(str(tmp_path / "a.mp4"), Span(0, MICROSECONDS), Nobody()))


def test_a_gesture_is_no_cut() -> None:
    before = np.full((180, 320, 3), 120, np.uint8)
    after = before.copy()
    after[40:140, 100:190] = 20
    assert changed_fraction(thumbnail(before), thumbnail(after)) < 0.3
    assert changed_fraction(thumbnail(before), thumbnail(before // 2)) == 1
    assert not is_cut(Look(0, 320, 180, thumbnail(before), ()), Look(1, 320, 180, thumbnail(after), ()))


def test_light_is_no_cut() -> None:
    """Nor is exposure, which multiplies all colors; another picture is another picture in any light."""
    choice = np.random.default_rng(0)
    coarse = [np.kron(choice.integers(20, 200, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8) for _ in range(2)]
    before = thumbnail(coarse[0])
    for light in (0.7, 0.9, 1.1, 1.25):
        after = thumbnail((coarse[0] * light).astype(np.uint8))
        assert changed_fraction(before, after) < 0.02
        assert not is_cut(Look(0, 320, 180, before, ()), Look(1, 320, 180, after, ()))
        assert changed_fraction(thumbnail(coarse[1]), after) > 0.8
    assert changed_fraction(before, thumbnail(coarse[0] // 2)) > 0.3, "more than light does"


def test_close_ups_before_one_wall_are_told_by_who_is_seen() -> None:
    wall = np.full((180, 320, 3), 120, np.uint8)
    wall[:, :80] = 90
    colors = np.eye(128, dtype=np.float32)
    one, other = (SeenPerson((100, 20, 200, 170), np.zeros((17, 3), np.float32), 0.9, colors[i]) for i in (0, 1))
    looks = [
        Look(0, 320, 180, thumbnail(wall), (one,)),
        Look(1, 320, 180, np.full((18, 32, 3), 120, np.uint8), (other,)),
    ]
    assert is_cut(*looks)
    assert not is_cut(looks[0], replace(looks[1], people=(one,)))
    assert not is_cut(looks[0], replace(looks[1], people=()))


@pytest.mark.parametrize("key_frame_s", [2, 3, 4, 6, 8, 10, 12, 100])
def test_the_detectors_turns_alternate_wherever_key_frames_are(tmp_path: Path, key_frame_s: int) -> None:
    """So that nobody is missed for long whom it finds in one kind of turn alone."""
    path, detector = write_shots(tmp_path / "video.mp4", [600], gop=key_frame_s * FPS), Nobody()
    looks = looks_of(path, detector=detector)
    is_odd = [turn % 2 for turn in detector.turns]
    assert len(looks) == len(is_odd)
    runs = "".join(map(str, is_odd)).replace("01", "0 1").replace("10", "1 0").split()
    assert max(map(len, runs)) <= 2
    in_parts = Nobody()
    assert_same(looks, looks_of(path, 24, in_parts))
    assert set(in_parts.turns) == set(detector.turns)


def test_torso_colors_are_those_between_shoulders_and_hips() -> None:
    frame_HWC = np.full((100, 100, 3), (30, 30, 200), np.uint8)
    frame_HWC[30:60, 35:65] = RED
    keypoints_K3 = np.zeros((17, 3), np.float32)
    keypoints_K3[[5, 6, 11, 12]] = [(65, 30, 1), (35, 30, 1), (62, 60, 1), (38, 60, 1)]
    person = Detection((25, 5, 75, 95), keypoints_K3, 1.0)
    colors = torso_colors(frame_HWC, person)
    assert colors.max() == 1
    assert colors.sum() == 1
    (seen,) = look_at(frame_HWC, 0, Everybody(person)).people
    np.testing.assert_array_equal(seen.colors, colors)
    tiny = Detection((25, 5, 27, 7), keypoints_K3 / 50, 1.0)
    np.testing.assert_allclose(torso_colors(frame_HWC, tiny), 1 / 128)


class Everybody:
    """A detector that always finds the same person."""

    digest = "everybody"

    def __init__(self, person: Detection) -> None:
        self.person = person

    def detect(self, frame_HWC: np.ndarray, turn: int = 0) -> list[Detection]:
        return [self.person]
