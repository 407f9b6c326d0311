"""Packing videos with their instances: each once, and the instances on the timeline of its proxy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microaction.clips.instances import Instance, read_instances
from microaction.clips.manifest import ManifestError, read_list
from microaction.clips.pack import pack_clips
from microaction.clips.rows import span_of
from microaction.clips.settings import PackSettings
from microaction.errors import DecodeError
from microaction.retraining.data import read_dataset
from microaction.taxonomy import ACTIONS
from microaction.video import Region, probe
from microaction.video.clip import ClipFrames
from microaction.video.probing import frame_times
from microaction.video.proxy import encode_proxy
from tests.videos import number_of, write_late_video, write_video

DURATIONS = [1, 2, 1, 3, 1, 1, 2, 5, 1, 1] * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video of constant rate, one of variable rate whose track starts late, and a list of spans of both."""
    write_video(tmp_path / "a.mp4", num_frames=60)
    write_late_video(tmp_path / "late.mkv", 1.0, DURATIONS)
    late_s = probe(tmp_path / "late.mkv").video_start_s
    (tmp_path / "late.mp4").unlink()
    rows = [
        ("a.mp4", 0.0, 1.0, 3, 2, "s1"),
        ("a.mp4", 0.5, 1.9, 4, 1, "s1"),
        ("late.mkv", late_s - 0.5, late_s + 0.5, 5, None, "s2"),
        ("late.mkv", late_s + 1.25, late_s + 2.0, 6, None, "s2"),
        ("late.mkv", 0.1, late_s - 0.2, 7, None, "s2"),
        ("absent.mp4", 0.0, 1.0, 8, None, None),
    ]
    write_list(tmp_path, rows)
    return tmp_path


def write_list(folder: Path, rows: Sequence[tuple[object, ...]], **more: int | list[int]) -> None:
    columns = ["video", "start_s", "end_s", "action", "person", "subject"]
    pd.DataFrame(rows, columns=columns).assign(**more).to_parquet(folder / "list.parquet")


def settings(folder: Path, **changes: object) -> PackSettings:
    fields = {"clips_list": folder / "list.parquet", "videos": folder, "out": folder / "out", "short_side": 64}
    return PackSettings.model_validate({name: str(value) for name, value in (fields | changes).items()})


def frames_of(uri: str, instance: Instance) -> ClipFrames:
    return ClipFrames.of(uri, span_of(instance.start_s, instance.end_s))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_videos_are_packed_once_with_their_instances(folder: Path) -> None:
    packed = pack_clips(settings(folder))
    out = folder / "out"
    assert (packed.num_clips, packed.num_instances, packed.num_packed_before) == (3, 4, 0)
    assert [row["name"] for row in packed.failures] == ["absent.mp4"]
    assert packed.notices == (
        f"{folder}/late.mkv: 1 of 3 instances are left out: they end before the video track begins, at "
        f"{probe(folder / 'late.mkv').video_start_s:.3f} s",
    )
    assert sorted(path.name for path in out.rglob("*.mp4")) == ["a.mp4", "late.mkv.mp4"]
    assert not (out / "list.parquet").exists()
    videos = read_instances(str(folder / "list.parquet"), str(folder))
    proxies = read_instances(str(out / "instances.parquet"), str(out / "videos"))
    assert [(video.name, video.subject) for video in proxies] == [("a.mp4", "s1"), ("late.mkv.mp4", "s2")]
    assert proxies[0].instances == videos[0].instances
    assert pd.read_parquet(out / "instances.parquet")["action"].tolist() == [ACTIONS[i] for i in (3, 4, 5, 6)]

    # An instance is of the same frames in the video and in its proxy.
    for video, proxy in zip(videos, proxies, strict=False):
        for original, copy in zip(video.instances, proxy.instances, strict=False):
            assert (original.action_id, original.person) == (copy.action_id, copy.person)
            expected, shown = frames_of(video.uri, original), frames_of(proxy.uri, copy)
            assert shown.times_s == pytest.approx(expected.times_s, abs=1e-4)
            assert shown.num_frames == expected.num_frames > 5
            pixels = [each.decode([2], np.copy)[0] for each in (expected, shown)]
            assert abs(number_of(pixels[0]) - number_of(pixels[1])) <= 2  # which the codec loses

    again = pack_clips(settings(folder))
    assert (again.num_packed_before, again.num_instances) == (2, 4)
    write_video(folder / "a.mp4", num_frames=50)
    assert pack_clips(settings(folder)).num_packed_before == 1
    clips = read_dataset(str(out), None, 52)
    assert [clip.name for clip in clips][:2] == ["a.mp4#t=0,1&person=2", "a.mp4#t=0.5,1.9&person=1"]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_proxies_that_are_cut_are_not_cut_again(folder: Path) -> None:
    region = dict(zip(("region_left", "region_top", "region_width", "region_height"), (8, 0, 40, 64), strict=True))
    write_list(folder, [("a.mp4", 0.0, 1.0, 3, 2, "s1"), ("a.mp4", 0.5, 1.9, 4, 1, "s1")], **region)
    packed = pack_clips(settings(folder, people="auto"))
    assert packed.failures == []
    info = probe(folder / "out/videos/a.mp4")
    assert (info.width, info.height) == (64, 102)
    clips = read_list(f"{folder}/out/instances.parquet", f"{folder}/out/videos", 52)
    assert [(clip.region, clip.person) for clip in clips] == [(Region(0, 0, 64, 102), 2), (Region(0, 0, 64, 102), 1)]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_videos_that_would_need_several_proxies_are_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"of a\.mp4 are of different people, but its proxy would show one"):
        pack_clips(settings(folder, people="auto"))
    rows = [("a.mp4", 0.0, 1.0, 3, None, "s1"), ("a.mp4", 0.5, 1.9, 4, None, "s1")]
    write_list(folder, rows, region_left=[0, 4], region_top=0, region_width=40, region_height=40)
    with pytest.raises(ManifestError, match=r"of a\.mp4 have different regions, but its proxy shows one"):
        pack_clips(settings(folder))
    (folder / "list.txt").write_text("a.mp4#t=0,1 3\n")
    with pytest.raises(ManifestError, match=r"names a\.mp4#t=0,1, a span of a video, but whole videos are packed"):
        pack_clips(settings(folder, clips_list=folder / "list.txt"))


def test_a_proxy_keeps_when_its_frames_are_shown(folder: Path) -> None:
    for name in ("a.mp4", "late.mkv"):
        info, proxy = probe(folder / name), encode_proxy(folder / name, 64)
        assert proxy.video_start_s == info.video_start_s
        assert probe(proxy.data).video_start_s == 0
        assert probe(proxy.data).duration_s == pytest.approx(info.duration_s, abs=1e-4)
        times_s = [float(time_s) for time_s in frame_times(folder / name)]
        assert [float(time_s) for time_s in frame_times(proxy.data)] == pytest.approx(times_s, abs=1e-5)


def test_frames_that_share_a_time_are_refused(folder: Path) -> None:
    write_video(folder / "same.mkv", num_frames=20, durations=[1] * 9 + [0] + [1] * 10, options={"bf": "0"})
    with pytest.raises(DecodeError, match=r"two of its frames have the same presentation timestamp, 0\.300 s"):
        encode_proxy(folder / "same.mkv", 64)
