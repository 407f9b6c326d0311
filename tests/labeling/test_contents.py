"""Which files of an archive are videos: by their content, whatever their names; everything else is counted."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from microaction.errors import DecodeError, FailureKind
from microaction.labeling.catalog import PassedOver, make_catalog, read_catalog, write_catalog
from microaction.labeling.probe import is_video
from microaction.video import probe
from microaction.video.decoding.formats import is_video_content
from tests.videos import write_video

FIELD_CASES = Path(__file__).parents[1] / "video/fieldcases"


def test_content_decides_whatever_the_name(tmp_path: Path) -> None:
    for case in FIELD_CASES.iterdir():
        assert is_video(str(shutil.copy(case, tmp_path / "without_suffix"))), case.name
    for name, content in {
        "notes": b"Interview, 3 May",
        "license.txt": b"The free software",
        "page.html": b"<html>" * 100,
        "list.m3u8": b"#EXTM3U\nhttp://example.org/1.ts\n",
        "picture.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        "picture.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00",
        "sound.m4a": b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00",
        "sound.wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
        "sound.opus": b"OggS\x00\x02" + bytes(22) + b"OpusHead",
        "icon.ico": b"\x00\x00\x01\x00\x01\x00\x20\x20",
        "archive.zip": b"PK\x03\x04",
        "table.parquet": b"PAR1",
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not is_video(str(tmp_path / name)), name
    assert is_video(str(tmp_path / "gone.mp4")), "it claims to be one"
    assert not is_video(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"/annex/objects/SHA256E-s1--aa.mp4\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    ],
)
def test_pointers_to_contents_elsewhere_name_the_command(content: bytes, command: str) -> None:
    with pytest.raises(DecodeError, match=f"its content is not here: .*{command}"):
        probe(content)


@pytest.mark.parametrize("offset", [0, 1, 100])
@pytest.mark.parametrize("stride", [188, 192, 204])
def test_transport_streams_are_recognized_from_any_offset(stride: int, offset: int) -> None:
    packet = b"\x47" + bytes(stride - 1)
    assert is_video_content(bytes(offset) + packet * 20)
    assert not is_video_content(bytes(offset) + packet * 3 + bytes(10 * stride))


def test_what_is_passed_over_is_counted_and_kept(tmp_path: Path) -> None:
    passed_over = PassedOver({".txt": 8, "": 1, ".jpg": 3}, num_hidden=2)
    assert str(passed_over) == ("12 files that are no videos (.txt 8, .jpg 3, no suffix 1), 2 hidden files and folders")
    assert str(PassedOver({}, 0)) == "0 files that are no videos"
    assert str(PassedOver({}, 1)) == "1 hidden file or folder"
    rows = pa.table(
        {"video": ["a"], "version": ["1"], "size_bytes": [9], "duration_s": [1.0], "error": ["decode_error"]}
    )
    for name in ("reason", "codec"):
        rows = rows.append_column(name, pa.nulls(1, pa.string()))
    for name in ("width", "height", "rotation", "fps", "num_frames"):
        rows = rows.append_column(name, pa.nulls(1, pa.int32()))
    rows = rows.append_column("has_audio", pa.nulls(1, pa.bool_()))
    write_catalog(passed_over.noted_in(rows), str(tmp_path / "catalog.parquet"))
    assert PassedOver.of(read_catalog(str(tmp_path / "catalog.parquet"))) == passed_over


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_catalog_lists_videos_and_counts_the_rest(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / ".Trash").mkdir(parents=True)
    write_video(archive / "video.mp4", num_frames=30)
    (archive / "video.mp4").rename(archive / "no_suffix")
    shutil.copy(archive / "no_suffix", archive / ".Trash/deleted.mp4")
    shutil.copy(FIELD_CASES / "CAMERA01.MOD", archive)
    (archive / "notes.TXT").write_text("x")
    (archive / "more.txt").write_text("x")
    (archive / "app.ts").write_text("export const x = 1;")
    (archive / "gone.mp4").symlink_to("nowhere.mp4")
    (archive / "gone.txt").symlink_to("nowhere.txt")
    catalog = make_catalog(str(archive))
    rows = {Path(row["video"]).name: row for row in catalog.to_pylist()}
    assert {name: row["error"] for name, row in rows.items()} == {
        "no_suffix": None,
        "CAMERA01.MOD": None,
        "app.ts": FailureKind.DECODE_ERROR,
        "gone.mp4": FailureKind.UNAVAILABLE,
    }
    assert rows["CAMERA01.MOD"]["seek_points"]
    assert PassedOver.of(catalog) == PassedOver({".txt": 3}, num_hidden=1)
    again = make_catalog(str(archive), known=catalog)
    assert again.equals(catalog)
    assert PassedOver.of(again) == PassedOver.of(catalog)
