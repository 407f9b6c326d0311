"""Videos that are damaged, and decoders that misbehave: each costs its own chunk, and no more."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from microaction.labeling import pipeline
from microaction.labeling.decoder import Decoder
from microaction.preprocessing import Preprocessing
from microaction.video import FrameSampling
from microaction.video.sandbox import Limits
from microaction.video.windows import Span, WindowGrid
from tests.archives import GOOD
from tests.labeling.decoders import HANG_LIMIT_S, MisbehavingDecoder, PoisonedDecoder
from tests.labeling.runs import label, tables
from tests.video import matrix
from tests.video.damage import KINDS, damaged
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

UNREACHED_TIMEOUT_S = 36_000.0  # of a whole chunk: no good video, however slow the node, runs into its part of that


@pytest.mark.slow
def test_a_video_that_kills_its_worker_costs_only_itself(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(archive / "a.mp4", archive / "poison.mp4")
    monkeypatch.setattr(pipeline, "Decoder", PoisonedDecoder)
    summary = label(archive, tmp_path / "out", model)
    found = tables(tmp_path / "out")
    row = found["failures"].set_index("video").loc[str(archive / "poison.mp4")].to_dict()
    assert (row["stage"], row["error"], row["start_s"], row["end_s"]) == ("decode", "worker_died", 0.0, 6.6)
    assert set(found["windows"]["video"]) == {str(archive / name) for name in GOOD}
    assert summary.publication.failed_s == pytest.approx(6.6)

    monkeypatch.undo()  # from here on the video decodes
    assert label(archive, tmp_path / "out", model).num_chunks == 0, "a failure of the video is not retried by itself"
    retried = label(archive, tmp_path / "out", model, retry_failed=True)
    assert (retried.num_chunks, retried.publication.failed_s) == (1, 0.0)


@pytest.mark.slow
def test_a_cut_video_is_labeled_up_to_the_cut(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    path = archive / "cut.mp4"
    write_video(path, num_frames=195, options={"g": "30"}, faststart=True)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size - 1500])
    summary = label(archive, tmp_path / "out", model, chunk_s=2.0)
    assert 0 < summary.publication.covered_s < 6.5
    assert summary.publication.covered_s + summary.publication.failed_s == pytest.approx(6.5)
    failures = tables(tmp_path / "out")["failures"]
    assert failures["stage"].unique().tolist() == ["decode"]
    assert failures["end_s"].max() == 6.5


def test_a_decoder_that_misbehaves_costs_only_its_chunk(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless loop that holds the GIL, SIGSEGV, SIGKILL, an exit, all memory used; each between good videos."""
    archive = tmp_path / "archive"
    archive.mkdir()
    write_video(archive / "a-good.mp4", num_frames=75)
    reasons = {
        "hang.mp4": ("decoder_timeout", f"decoding did not finish within {HANG_LIMIT_S:g} s and was stopped"),
        "crash.mp4": ("decoder_crashed", "the decoder's process was killed by SIGSEGV"),
        "killed.mp4": ("decoder_crashed", "the decoder's process was killed by SIGKILL"),
        "leave.mp4": ("decoder_crashed", "the decoder's process exited with code 7"),
        "hungry.mp4": ("decoder_crashed", "decoding exceeded its memory limit of 0.5 GiB"),
    }
    for name in (*reasons, "b-good.mp4", "z-good.mp4"):
        shutil.copy(archive / "a-good.mp4", archive / name)
    monkeypatch.setattr(pipeline, "Decoder", MisbehavingDecoder)
    label(archive, tmp_path / "out", model, decode_timeout_s=UNREACHED_TIMEOUT_S, decode_memory_gib=0.5)
    found = tables(tmp_path / "out")
    failures = {Path(row["video"]).name: (row["error"], row["reason"]) for row in found["failures"].to_dict("records")}
    assert failures == reasons
    assert {(row["stage"], row["start_s"], row["end_s"]) for row in found["failures"].to_dict("records")} == {
        ("decode", 0.0, 2.5)
    }
    covered = found["videos"].set_index("video")["covered_s"]
    good = ("a-good.mp4", "b-good.mp4", "z-good.mp4")
    assert {Path(str(video)).name: seconds for video, seconds in covered.items() if seconds} == dict.fromkeys(good, 2.5)


def test_shorter_chunks_have_shorter_time_limits() -> None:
    decoder = Decoder(
        WindowGrid(2_000_000, 1_000_000),
        FrameSampling(),
        Preprocessing(),
        Limits(600.0),
        chunk_us=120_000_000,
        reuse=None,
    )
    for length_s, time_s in ((120, 600.0), (60, 300.0), (3, 30.0)):
        assert decoder._limits_of(Span(0, length_s * 1_000_000)).time_s == time_s
    hasty = replace(decoder, limits=Limits(5.0))
    assert hasty._limits_of(Span(0, 3_000_000)).time_s == 5.0


def test_undamaged_windows_of_a_damaged_video_are_right(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    path = archive / "v.mp4"
    write_video(path, num_frames=180, options={"g": "30", "keyint_min": "30", "sc_threshold": "0"})
    label(archive, tmp_path / "whole", model)
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
    assert hit.pts is not None
    assert hit.pts * hit.time_base == 2
    assert hit.pos is not None
    data = bytearray(path.read_bytes())
    data[hit.pos + 8 : hit.pos + hit.size] = bytes(hit.size - 8)
    path.write_bytes(data)
    label(archive, tmp_path / "damaged", model)
    whole, damaged = (tables(tmp_path / name) for name in ("whole", "damaged"))
    # Frames 60 to 89 are lost: windows that hold one of them are missing, the others are as they were.
    kept = whole["windows"][(whole["windows"]["end_s"] <= 2.0) | (whole["windows"]["start_s"] >= 3.0)]
    assert damaged["windows"]["start_s"].tolist() == kept["start_s"].tolist() == [0.0, 3.0, 4.0]
    np.testing.assert_allclose(
        np.stack(list(damaged["windows"]["probabilities"])), np.stack(list(kept["probabilities"]))
    )
    (failure,) = damaged["failures"].to_dict("records")
    assert (failure["start_s"], failure["end_s"], failure["stage"]) == (2.0, 3.0, "decode")
    assert "damaged" in failure["reason"]


def test_an_archive_of_damaged_videos_is_accounted_for(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for coding, suffix in (("h264-b-pyramid", ".mp4"), ("h264-b-pyramid", ".ts"), ("vp9", ".mkv"), ("mjpeg", ".avi")):
        matrix.write(tmp_path / f"v{suffix}", coding, "constant")
        data = (tmp_path / f"v{suffix}").read_bytes()
        for number in range(8):
            copy = damaged(data, random.Random(number), KINDS[number % len(KINDS)])
            (archive / f"{coding}{number}{suffix}").write_bytes(copy)
    label(archive, tmp_path / "out", model, window_s=0.4, stride_s=0.2, chunk_s=0.7)
    found = tables(tmp_path / "out")
    videos = found["videos"]
    assert len(videos) == 32
    readable = videos[videos["duration_s"].notna()]
    np.testing.assert_allclose(readable["covered_s"] + readable["failed_s"], readable["duration_s"], atol=1e-5)
    assert 0 < readable["failed_s"].sum() < readable["duration_s"].sum()
    assert set(videos["video"]) - set(readable["video"]) <= set(found["failures"]["video"])
    assert (found["failures"]["error"] == "decode_error").all(), "known damage only, nothing unexpected"
