from pathlib import Path

import av
import pytest

from microaction.synthetic import DEFAULT_SIZE, Subject, VideoSize, render_clip
from microaction.synthetic.render import MAX_CLIP_FRAMES, MIN_CLIP_FRAMES


def clip(path: Path, *, seed: int = 1, subject_seed: int = 2, action: int = 19) -> Path:
    render_clip(path, subject_seed=subject_seed, action=action, seed=seed)
    return path


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    first = clip(tmp_path / "a.mp4").read_bytes()
    for repeat in range(5):  # an encoder may be nondeterministic only occasionally
        assert clip(tmp_path / f"{repeat}.mp4").read_bytes() == first


def test_different_seeds_give_different_clips(tmp_path: Path) -> None:
    first = clip(tmp_path / "a.mp4").read_bytes()
    assert clip(tmp_path / "b.mp4", seed=2).read_bytes() != first
    assert clip(tmp_path / "c.mp4", subject_seed=3).read_bytes() != first
    assert clip(tmp_path / "d.mp4", action=20).read_bytes() != first


def test_subjects_differ_and_are_reproducible() -> None:
    subjects = [Subject.from_seed(seed) for seed in range(50)]
    assert len(set(subjects)) == 50
    assert subjects == [Subject.from_seed(seed) for seed in range(50)]


def test_a_clip_is_h264_with_b_frames(tmp_path: Path) -> None:
    with av.open(str(clip(tmp_path / "a.mp4"))) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 30
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == DEFAULT_SIZE
    assert MIN_CLIP_FRAMES <= len(frames) <= MAX_CLIP_FRAMES
    assert av.video.frame.PictureType.B in {frame.pict_type for frame in frames}
    times_s = [frame.time for frame in frames]
    assert times_s == pytest.approx([index / 30 for index in range(len(frames))])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_a_clip_has_the_given_size_and_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    render_clip(path, subject_seed=0, action=0, seed=0, size=VideoSize(96, 64), fps=15)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (96, 64)
        assert stream.average_rate == 15


def test_a_failed_render_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"size \(161×192\) must be even"):
        render_clip(tmp_path / "a.mp4", subject_seed=0, action=0, seed=0, size=(161, 192))
    with pytest.raises(ValueError, match=r"action \(52\) must be a label in 0..51"):
        render_clip(tmp_path / "a.mp4", subject_seed=0, action=52, seed=0)
    assert list(tmp_path.iterdir()) == []
