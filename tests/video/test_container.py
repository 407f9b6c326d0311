import shutil
import threading
from contextlib import closing
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import pytest

from microaction.synthetic.faults import write_audio_only, write_truncated
from microaction.video import DecodeError, VideoInfo, decode_frames, probe
from microaction.video.decoding.formats import container_format
from microaction.video.probing import frame_times
from microaction.video.sandbox import Limits, Sandbox
from tests.videos import write_video


def test_probe_returns_the_facts_of_a_video(counted_video: Path) -> None:
    assert probe(counted_video) == VideoInfo("h264", 96, 64, 0, Fraction(30), 120, 4.0, False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_duration_is_exact_in_every_container(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    # AVI has no presentation timestamps, so its usual streams have no B-frames.
    write_video(
        path,
        num_frames=60,
        fps=25,
        with_audio=suffix in (".mp4", ".mkv"),
        options={"bf": "0"} if suffix == ".avi" else None,
    )
    info = probe(path)
    assert info.num_frames == 60
    assert info.fps == 25
    assert info.duration_s == pytest.approx(2.4, abs=0.002)  # the ticks of MKV and TS are 1 ms and 1/90000 s
    assert info.has_audio == (suffix in (".mp4", ".mkv"))


def test_longer_audio_does_not_change_the_duration(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=15, with_audio=True)  # half a second of video, a second of audio
    assert probe(tmp_path / "a.mp4").duration_s == pytest.approx(0.5)


def test_a_fractional_frame_rate_is_exact(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=30, fps=Fraction(30000, 1001))
    assert probe(tmp_path / "a.mp4").fps == Fraction(30000, 1001)


@pytest.mark.parametrize(("rotation", "size"), [(0, (96, 64)), (90, (64, 96)), (180, (96, 64)), (270, (64, 96))])
def test_the_size_is_that_of_displayed_frames(tmp_path: Path, rotation: int, size: tuple[int, int]) -> None:
    write_video(tmp_path / "a.mp4", num_frames=3, rotation=rotation)
    info = probe(tmp_path / "a.mp4")
    assert (info.rotation, info.width, info.height) == (rotation, *size)


def test_the_content_decides_the_format_not_the_name(counted_video: Path, tmp_path: Path) -> None:
    shutil.copy(counted_video, tmp_path / "a.avi")
    assert probe(tmp_path / "a.avi").num_frames == 120


def test_unreadable_files_have_a_readable_reason(counted_video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("Interview, 3 May. The file will follow by mail.\n" * 20)
    write_truncated(tmp_path / "short.mp4", counted_video)
    write_audio_only(tmp_path / "sound.mp4")
    for name, reason in {
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video: its content is in none of the container formats that are read",
        "short.mp4": r"cut short or damaged: the index of the MP4/MOV file \(its 'moov' box\) is missing",
        "sound.mp4": "contains no video, only audio",
        "absent.mp4": "no such file",
    }.items():
        with pytest.raises(DecodeError, match=f"{name}: {reason}"):
            probe(tmp_path / name)


def test_playlists_are_refused_and_their_entries_untouched(tmp_path: Path) -> None:
    requested: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        secret = tmp_path / "secret.ts"
        secret.write_bytes(b"secret")
        url = f"http://127.0.0.1:{server.server_port}/video.ts"
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"
        concat = f"ffconcat version 1.0\nfile '{secret}'\nfile '{url}'\n"
        for content in (hls, concat):
            (tmp_path / "interview.mp4").write_text(content)
            with pytest.raises(DecodeError, match="not a video"):
                probe(tmp_path / "interview.mp4")
    finally:
        server.shutdown()
        server.server_close()
    assert requested == []


def test_frames_too_large_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    side = 9000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(side, side, "yuvj420p")))
        container.mux(stream.encode(None))
    assert path.stat().st_size < 5e6
    # Decoding it takes 120 MiB, more than this sandbox may use; refusing it does not.
    with (
        closing(Sandbox(Limits(memory_bytes=64 << 20))) as sandbox,
        pytest.raises(DecodeError, match="its frames are larger than 67108864 pixels"),
    ):
        sandbox.call("v", probe, str(path))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_implausible_durations_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    write_video(path, num_frames=3, durations=[30 * 3600 * 25] * 3)
    with pytest.raises(DecodeError, match=r"declares a duration of [57][05] hours, more than the limit of 48"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg"])
@pytest.mark.parametrize("disguise", ["", "\n", "   "])
def test_every_reader_refuses_playlists_under_any_name(tmp_path: Path, suffix: str, disguise: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    path = tmp_path / f"interview{suffix}"
    for content in (
        f"{disguise}#EXTM3U\n#EXTINF:1,\n{secret}\n",
        f"{disguise}ffconcat version 1.0\nfile '{secret}'\n",
        f"{disguise}<?xml version='1.0'?><MPD><BaseURL>{secret}</BaseURL></MPD>",
        f"{disguise}[playlist]\nFile1={secret}\n",
    ):
        path.write_text(content)
        for read in (probe, lambda source: decode_frames(source, [0]), frame_times):
            with pytest.raises(DecodeError, match="not a video") as refusal:
                read(str(path))
            assert "SECRET" not in str(refusal.value)


def test_formats_are_recognized_by_their_first_bytes() -> None:
    assert container_format(b"\x00\x00\x00\x20ftypisom") == "mov"
    assert container_format(b"\x1a\x45\xdf\xa3rest") == "matroska"
    assert container_format(b"RIFF\x00\x00\x00\x00AVI LIST") == "avi"
    assert container_format(b"RIFF\x00\x00\x00\x00WAVEfmt ") is None
    assert container_format((b"\x47" + bytes(187)) * 4) == "mpegts"
    assert container_format((bytes(4) + b"\x47" + bytes(187)) * 4) == "mpegts"
    assert container_format(b"G is a letter, not a transport stream" * 30) is None
    assert container_format(b"#EXTM3U\n") is None
    assert container_format(b"") is None
