"""Clips that are spans of longer videos: their names, their frames, and lists of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.clips.rows import SpanName, span_of
from microaction.clips.sample import Augmentation, Sampling, decode_clip, load_clip
from microaction.clips.skeletons import ClipSkeletons
from microaction.people import look_at_clip
from microaction.preprocessing import Preprocessing
from microaction.skeletons import SkeletonError, write_skeletons
from microaction.skeletons.skeleton import Skeleton
from microaction.taxonomy import ACTIONS
from microaction.video import DecodeError, Region, probe
from microaction.video.clip import ClipFrames, span_times
from microaction.video.decoding.sources import open_counted
from microaction.video.probing import frame_times
from microaction.video.windows import Span
from tests.video import matrix
from tests.videos import number_of, write_late_video, write_video

PIXELS = Preprocessing(short_side=72, crop=64)
DURATIONS = [1, 2, 1, 3, 1, 1, 2, 5, 1, 1] * 10


def numbers(path: Path | str, start_s: float, end_s: float) -> list[int]:
    frames = ClipFrames.of(str(path), span_of(start_s, end_s))
    return [number_of(frame) for frame in frames.decode(range(frames.num_frames), np.copy)]


def write_cut(source: Path, path: Path, kept: Sequence[int]) -> None:
    """Write some frames of a counted video as a file of its own, losslessly, at the times that they have."""
    times_s = frame_times(source)
    with av.open(str(source)) as video, av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(video.decode(video=0)):
            if index not in kept:
                continue
            if index == kept[0]:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = round((times_s[index] - times_s[kept[0]]) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
@pytest.mark.parametrize("durations", [None, DURATIONS], ids=["constant", "variable"])
def test_a_span_has_the_frames_that_are_on_the_screen_in_it(
    tmp_path: Path, suffix: str, durations: list[int] | None
) -> None:
    path = tmp_path / f"v{suffix}"
    write_video(path, num_frames=100, durations=durations)
    starts = np.concatenate([[0], np.cumsum(durations or [1] * 100)]) / 30
    for start_s, end_s in ((0, 0.5), (0.52, 1.7), (1.1, 1.11), (2.0, 90), (3.3001, 3.3002)):
        shown = [i for i in range(100) if starts[i] + 1e-3 < end_s and starts[i + 1] > start_s + 1e-3]
        shown = shown or [int(np.searchsorted(starts, start_s, "right")) - 1]
        assert numbers(path, start_s, end_s) == shown, (start_s, end_s)


def test_times_that_were_rounded_name_the_frame_that_is_meant(tmp_path: Path) -> None:
    """MMA-52's lists round to 0.1 ms, and Matroska to 1 ms, up and down."""
    for suffix in (".mp4", ".mkv"):
        write_video(tmp_path / f"v{suffix}", num_frames=100)
        for first, end in ((10, 23), (23, 70), (8, 9)):
            for digits in (4, 6):
                kept = numbers(tmp_path / f"v{suffix}", round(first / 30, digits), round(end / 30, digits))
                assert kept == list(range(first, end))


@pytest.mark.parametrize(
    "case", ["h264-b-pyramid", "h264-open-gop", "h264-interlaced", "hevc-open-gop", "mpeg4", "vp9"]
)
@pytest.mark.parametrize("timing", ["constant", "variable", "edit list"])
def test_a_span_of_any_coding_is_a_part_of_its_video(tmp_path: Path, case: str, timing: str) -> None:
    path = tmp_path / "v.mp4"
    matrix.write(path, case, timing)
    times_s = frame_times(path)
    whole = ClipFrames.of(path).decode(range(len(times_s)), np.copy)
    for first, end in ((0, 9), (13, 14), (20, 53), (60, len(times_s))):
        end_s = float(times_s[end]) if end < len(times_s) else 1000.0
        frames = ClipFrames.of(path, span_of(float(times_s[first]), end_s))
        assert frames.times_s == times_s[first:end]
        np.testing.assert_array_equal(frames.decode(range(end - first), np.copy), whole[first:end])


@pytest.mark.parametrize(
    "case",
    [
        matrix.Case("h264-b-pyramid", ".mp4", "fragmented"),
        matrix.Case("mpeg4-no-b", ".avi", "constant"),
        matrix.Case("h264-b-pyramid", ".m2ts", "constant"),
        matrix.Case("mpeg2", ".mpg", "constant"),
        matrix.Case("wmv2", ".wmv", "constant"),
        matrix.Case("mpeg2", ".mxf", "constant"),
    ],
    ids=lambda case: case.file_name,
)
def test_a_span_is_a_part_of_its_video_in_any_container(tmp_path: Path, case: matrix.Case) -> None:
    path = tmp_path / case.file_name
    matrix.write(path, case.coding, case.timing)
    times_s, late_s = frame_times(path), probe(path).video_start_s
    whole = ClipFrames.of(path).decode(range(len(times_s)), np.copy)
    for first, end in ((0, 9), (20, 53), (60, len(times_s))):
        end_s = float(times_s[end]) if end < len(times_s) else 1000.0
        frames = ClipFrames.of(path, span_of(float(times_s[first]) + late_s, end_s + late_s))
        np.testing.assert_array_equal(frames.decode(range(frames.num_frames), np.copy), whole[first:end])


@pytest.mark.parametrize("durations", [None, DURATIONS], ids=["constant", "variable"])
def test_a_network_sees_a_span_as_if_it_were_a_file(tmp_path: Path, durations: list[int] | None) -> None:
    """In testing and in training, also where the part of the frames that counts moves, and if the span is short."""
    video = tmp_path / "v.mp4"
    write_video(video, num_frames=100, durations=durations)
    times_s = frame_times(video)
    moving = Augmentation(1, 2, (1.0, 0.75), part_shift=0.1, part_scale=0.1)
    for rule in ("segments", "consecutive"):
        pixels = PIXELS.model_copy(update={"sampling": rule})
        for first, end in ((0, 40), (37, 90), (50, 53)):
            write_cut(video, tmp_path / "cut.mkv", range(first, end))
            span = span_of(float(times_s[first]), float(times_s[end]))
            for augmentation in (None, Augmentation(1, 2, (1.0, 0.75)), moving):
                sampling = Sampling(8, pixels, augmentation)
                cut = decode_clip(str(tmp_path / "cut.mkv"), 5, sampling).frames_THWC
                np.testing.assert_array_equal(decode_clip(str(video), 5, sampling, span=span).frames_THWC, cut)
    look, of_cut = look_at_clip(ClipFrames.of(video, span)), look_at_clip(tmp_path / "cut.mkv")
    assert (look.width, look.height) == (of_cut.width, of_cut.height)


def test_a_span_is_on_the_timeline_of_its_file(tmp_path: Path) -> None:
    """The video track may start after the sound."""
    path = write_late_video(tmp_path / "late.mkv", 1.0)
    late_s = probe(path).video_start_s
    assert late_s > 0.9
    assert numbers(path, 0, late_s + 0.2) == list(range(6))
    assert numbers(path, late_s + 0.5, late_s + 0.6) == [15, 16, 17]
    assert numbers(path, late_s + 1.9, 9) == [57, 58, 59]
    with pytest.raises(DecodeError, match=rf"from 0 to 0\.5 s ends before the video track begins, at {late_s:.3f} s"):
        span_times(path, span_of(0, 0.5))


def test_a_span_beyond_the_end_is_cut_or_an_error(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", num_frames=60)
    assert numbers(tmp_path / "v.mp4", 1.9, 7) == [57, 58, 59]
    for start_s in (2, 2.1, 500):
        with pytest.raises(
            DecodeError, match=rf"the span from {start_s} to 900 s begins beyond the end of the video, at 2"
        ):
            load_clip(str(tmp_path / "v.mp4"), 0, Sampling(8, PIXELS), span=span_of(start_s, 900))
    with pytest.raises(DecodeError, match="no such file"):
        load_clip(str(tmp_path / "absent.mp4"), 0, Sampling(8, PIXELS), span=span_of(0, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_little_of_a_long_video_is_read_for_a_span(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuvj420p"
        for image in [rng.integers(0, 255, (128, 192, 3), np.uint8) for _ in range(8)] * 250:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with open_counted(str(path)) as file:
        frames = ClipFrames.of(file, span_of(40, 42))
        assert len(frames.decode(range(0, 50, 6), np.copy)) == 9
        assert file.num_bytes < 0.1 * path.stat().st_size


def test_names_of_spans_say_what_they_are() -> None:
    name = SpanName("a/b.mp4", Span(1_500_000, 4_000_000), 2, 9)
    assert str(name) == "a/b.mp4#t=1.5,4&person=2&action=9"
    assert SpanName.parse(str(name)) == name
    assert str(SpanName.parse("a.mp4#t=0.766700,2.3667")) == "a.mp4#t=0.7667,2.3667"
    assert SpanName.parse("a#t=1.mp4") is None


@pytest.fixture
def spans(tmp_path: Path) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video": ["a.mp4", "b.mp4", "a.mp4", "a.mp4"],
            "start_s": [1.0, 0.0, 2.5, 1.0],
            "end_s": [2.5, 3.0, 5.0, 2.5],
            "action": [ACTIONS[7], ACTIONS[0], ACTIONS[51], ACTIONS[9]],
            "person": [2, None, None, 2],
            "subject": ["s1", None, "s1", "s1"],
        }
    )


def test_a_table_of_spans_lists_clips(tmp_path: Path, spans: pd.DataFrame) -> None:
    region = {"region_left": 1, "region_top": 2, "region_width": 30, "region_height": 40}
    spans.assign(**region).to_parquet(tmp_path / "list.parquet")
    clips = read_list(str(tmp_path / "list.parquet"), "videos", 52)
    span, part = Span(1_000_000, 2_500_000), Region(1, 2, 30, 40)
    assert clips == [
        Clip("a.mp4#t=1,2.5&person=2&action=7", "videos/a.mp4", 7, part, "s1", 2, span),
        Clip("a.mp4#t=2.5,5", "videos/a.mp4", 51, part, "s1", None, Span(2_500_000, 5_000_000)),
        Clip("a.mp4#t=1,2.5&person=2&action=9", "videos/a.mp4", 9, part, "s1", 2, span),
        Clip("b.mp4#t=0,3", "videos/b.mp4", 0, part, None, None, Span(0, 3_000_000)),
    ]
    assert clips[0].location == "videos/a.mp4#t=1,2.5&person=2"


def test_annotations_of_mma52_list_clips(tmp_path: Path) -> None:
    header, rows = (
        "id,video_id,start_frame,end_frame,class,total_frames,fps",
        ("0,v0,23,71,9,168,30.0", "1,v0,0,71,5,168,30.0"),
    )
    path = tmp_path / "val.csv"
    path.write_text("\n".join([header, *rows, ""]))
    assert read_list(str(path), "/videos", 52) == [
        Clip("v0.mp4#t=0.7667,2.3667", "/videos/v0.mp4", 9, span=Span(766_700, 2_366_700)),
        Clip("v0.mp4#t=0,2.3667", "/videos/v0.mp4", 5, span=Span(0, 2_366_700)),
    ]


def test_any_list_may_name_spans(tmp_path: Path, spans: pd.DataFrame) -> None:
    """So the names in predictions and splits can be listed again."""
    spans.to_parquet(tmp_path / "spans.parquet")
    clips = read_list(str(tmp_path / "spans.parquet"), "/videos", 52)
    (tmp_path / "list.txt").write_text("".join(f"{clip.name} {clip.label}\n" for clip in clips))
    assert read_list(str(tmp_path / "list.txt"), "/videos", 52) == [replace(clip, subject=None) for clip in clips]
    named = [{"name": clip.name, "label": clip.label, "subject": clip.subject} for clip in clips]
    pd.DataFrame(named).to_parquet(tmp_path / "list.parquet")
    assert read_list(str(tmp_path / "list.parquet"), "/videos", 52) == clips


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: pd.concat([table, table[:1]]), r"a\.mp4#t=1,2\.5&person=2&action=7 is listed a second time"),
        (lambda table: table.assign(end_s=table["start_s"] + 1e-7), r"a\.mp4: it must start before it ends"),
        (lambda table: table.drop(columns="action"), "lacks the columns action"),
        (lambda table: table[:0], "lists no instances"),
    ],
)
def test_rows_that_are_no_clips_are_refused(
    tmp_path: Path, spans: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    change(spans).to_parquet(tmp_path / "list.parquet")
    with pytest.raises(ManifestError, match=message):
        read_list(str(tmp_path / "list.parquet"), "videos", 52)
    (tmp_path / "list.txt").write_text("a.mp4#t=2,1 3\n")
    with pytest.raises(ManifestError, match=r"line 1: a\.mp4#t=2,1: it must start before it ends"):
        read_list(str(tmp_path / "list.txt"), "videos", 52)


def test_skeletons_of_spans_are_found_by_name(tmp_path: Path) -> None:
    span = Span(0, 1_000_000)
    clips = [Clip(str(SpanName("a.mp4", span, action_id=i)), "/videos/a.mp4", i, span=span) for i in (1, 2)]
    dots = Skeleton(np.ones((1, 4, 28, 2), np.float32), np.ones((1, 4, 28), np.float32), 96, 64)
    write_skeletons(((clip.name, dots) for clip in clips), str(tmp_path / "spans.parquet"))
    found = ClipSkeletons.read((clips, str(tmp_path / "spans.parquet")))
    assert Skeleton.from_bytes(found.packed(clips[1])).num_frames == 4
    write_skeletons(iter([("a.mp4", dots)]), str(tmp_path / "videos.parquet"))
    with pytest.raises(SkeletonError, match=r"has no skeleton of 2 of 2 clips, the first of which is a\.mp4#t=0,1"):
        ClipSkeletons.read((clips, str(tmp_path / "videos.parquet")))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_spans_of_one_video_are_read_and_left_out_one_by_one(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", num_frames=90)
    table = pd.DataFrame({"video": "v.mp4", "start_s": [0.0, 7.0, 1.5], "end_s": [1.0, 8.0, 2.5], "action": [3, 4, 5]})
    table.to_parquet(tmp_path / "list.parquet")
    clips = read_list(str(tmp_path / "list.parquet"), str(tmp_path), 52)
    errors: list[DecodeError] = []
    (batch,) = read_clips(clips, np.arange(3), Sampling(8, PIXELS), 4, on_unreadable=errors.append)
    assert batch.target_B.tolist() == [3, 5]
    assert [number_of(frame) for frame in batch.frames_BTHWC[1]] == [46, 50, 54, 58, 61, 65, 69, 73]
    assert [error.uri for error in errors] == [f"{tmp_path}/v.mp4#t=7,8"] == [clips[1].location]
