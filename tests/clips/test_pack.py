"""Packing: the proxies, their lists, and packing again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from microaction.clips.pack import pack_clips, proxy_name
from microaction.clips.sample import Augmentation, Sampling, decode_clip
from microaction.clips.settings import PackSettings
from microaction.errors import FailureKind
from microaction.preprocessing import Preprocessing
from microaction.retraining.data import read_dataset
from microaction.video import decode_frames, probe, segment_indices
from microaction.video.probing import frame_times
from microaction.video.proxy import encode_proxy
from tests.video import matrix
from tests.videos import write_video

ROOT = Path(__file__).parents[2]


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of two gray images (Wang et al. 2004; Gaussian window of σ 1.5)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blurred(image: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.GaussianBlur(image, (11, 11), 1.5))

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b, both = (
        blurred(x * y) - mean_x * mean_y
        for x, y, mean_x, mean_y in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    similar = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


@pytest.mark.parametrize("timing", ["constant", "variable", "rotation", "edit list"])
def test_a_proxy_has_the_frames_of_its_clip_at_their_times(tmp_path: Path, timing: str) -> None:
    path = tmp_path / "v.mp4"
    matrix.write(path, "h264-b-pyramid", timing)
    proxy = encode_proxy(path, 64)
    info = probe(path)
    assert (proxy.num_frames, proxy.width, proxy.height) == (info.num_frames, info.width, info.height)
    originals, copies = (decode_frames(source, range(info.num_frames)).astype(int) for source in (path, proxy.data))
    apart = np.abs(originals[:, None] - copies[None]).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == list(range(info.num_frames)), "each copy is closest to its own original"
    assert frame_times(proxy.data) == pytest.approx([float(time) for time in frame_times(path)], abs=1e-4)
    assert probe(proxy.data).rotation == 0


def test_proxies_of_real_clips_are_visually_lossless(shared: Path) -> None:
    for path in sorted((shared / "data/clips").iterdir()):
        proxy = encode_proxy(path, 256)
        assert proxy.psnr_db > 42
        indices = segment_indices(probe(path).num_frames).tolist()
        gray = [
            [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decode_frames(source, indices, 256)]
            for source in (path, proxy.data)
        ]
        assert min(ssim(a, b) for a, b in zip(*gray, strict=True)) > 0.98


def test_a_network_sees_nearly_the_same_pixels_of_a_proxy(tmp_path: Path, shared: Path) -> None:
    """In testing and in training: frames, crops and flips are the same, and pixels nearly are."""
    path = shared / "data/clips/ntu_sample.avi"
    (tmp_path / "p.mp4").write_bytes(encode_proxy(path, 256).data)
    for augmentation in (None, Augmentation(seed=1, epoch=2, crop_scales=(1.0, 0.75))):
        sampling = Sampling(8, Preprocessing(), augmentation)
        original, proxy = (
            decode_clip(str(each), 5, sampling).frames_THWC.astype(int) for each in (path, tmp_path / "p.mp4")
        )
        assert original.shape == proxy.shape
        assert np.abs(original - proxy).mean() < 2


def test_proxies_have_distinct_names() -> None:
    assert [proxy_name(name) for name in ("a.mp4", "b/a.avi", "a.avi")] == ["a.mp4", "b/a.avi.mp4", "a.avi.mp4"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    names = ["a.mp4", "deep/b.mkv", "c.avi", "d.mp4"]
    for name in names:
        write_video(folder / name, num_frames=30, options={"bf": "0"} if name.endswith("avi") else None)
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    lines = [f"{name} {label}" for label, name in enumerate([*names, "cut.mp4", "absent.mp4"])]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return folder


def settings(clips: Path, **changes: object) -> PackSettings:
    fields = {"clips_list": clips.parent / "list.txt", "videos": clips, "out": clips.parent / "out", "short_side": 48}
    return PackSettings.model_validate({name: str(value) for name, value in (fields | changes).items()})


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_list_is_packed_and_bad_clips_are_reported(clips: Path) -> None:
    seen: list[tuple[int, int]] = []
    packed = pack_clips(settings(clips), on_progress=lambda done, total: seen.append((done, total)))
    out = clips.parent / "out"
    assert (out / "list.txt").read_text() == "a.mp4 0\ndeep/b.mkv.mp4 1\nc.avi.mp4 2\nd.mp4 3\n"
    assert {row["name"]: row["reason"].split(":")[0] for row in packed.failures} == {
        "cut.mp4": "cut short or damaged",
        "absent.mp4": "no such file, though the list names it",
    }
    assert {row["error"] for row in packed.failures} == {FailureKind.DECODE_ERROR}
    listed = pd.read_parquet(out / "list.parquet")
    assert listed["name"].tolist() == ["a.mp4", "deep/b.mkv.mp4", "c.avi.mp4", "d.mp4"]
    manifest = pd.read_parquet(out / "manifest.parquet")
    assert manifest["name"].tolist() == ["a.mp4", "deep/b.mkv", "c.avi", "d.mp4", "cut.mp4", "absent.mp4"]
    assert manifest["label"].tolist() == list(range(6))
    assert manifest["source"].tolist()[1] == str(clips / "deep/b.mkv")
    assert manifest["psnr_db"].min() > 40
    for row in manifest[manifest["error"].isna()].to_dict("records"):
        assert probe(out / "videos" / row["proxy"]).num_frames == row["num_frames"] == 30
    assert seen[-1] == (6, 6)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_subjects_are_listed_where_names_lack_them(clips: Path) -> None:
    rows = [{"name": "a.mp4", "label": 0, "subject": "P07"}, {"name": "d.mp4", "label": 3, "subject": None}]
    pd.DataFrame(rows).to_parquet(clips / "list.parquet")
    pack_clips(settings(clips, clips_list=clips / "list.parquet"))
    listed = read_dataset(str(clips.parent / "out"), None, 52)
    assert [(clip.name, clip.subject) for clip in listed] == [("a.mp4", "P07"), ("d.mp4", None)]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_packing_again_packs_only_what_is_new_or_changed(clips: Path) -> None:
    pack_clips(settings(clips))
    out = clips.parent / "out/videos"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    write_video(clips / "d.mp4", num_frames=20)
    write_video(clips / "cut.mp4", num_frames=10)
    packed = pack_clips(settings(clips))
    assert packed.num_packed_before == 3
    assert [row["name"] for row in packed.failures] == ["absent.mp4"]
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert {path.name for path in after if after[path] != before.get(path)} == {"d.mp4", "cut.mp4"}
    assert probe(out / "d.mp4").num_frames == 20
    for short_side in (40, 48):
        assert pack_clips(settings(clips, short_side=short_side)).num_packed_before == 0
        assert pack_clips(settings(clips, short_side=short_side)).num_packed_before == 5


@pytest.mark.slow
def test_packing_resumes_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "0.mp4", num_frames=150, size=(320, 240))
    for number in range(1, 64):
        os.link(folder / "0.mp4", folder / f"{number}.mp4")
    (tmp_path / "list.txt").write_text("".join(f"{number}.mp4 1\n" for number in range(64)))
    command = [sys.executable, "-m", "jobs.pack", "--clips-list", str(tmp_path / "list.txt")]
    command += ["--videos", str(folder), "--out", str(tmp_path / "out")]
    killed = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not list((tmp_path / "out").glob("_pages/*.parquet")):
            assert killed.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    resumed = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / "out/list.txt").read_text().splitlines()) == 64
    table = " ".join(resumed.stderr.split())
    assert "packed before │ 0 " not in table
    assert "unreadable │ 0 " in table
