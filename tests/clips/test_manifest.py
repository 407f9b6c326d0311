"""Lists of labeled clips: text in MA-52's format, and Parquet tables."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.video import Region


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return str(path)


def test_a_line_is_a_name_and_a_label(tmp_path: Path) -> None:
    clips = read_list(write(tmp_path, "a b.mp4 3\n\nsub/c.mp4 51\n"), "s3://bucket/train", 52)
    assert clips == [
        Clip("a b.mp4", "s3://bucket/train/a b.mp4", 3),
        Clip("sub/c.mp4", "s3://bucket/train/sub/c.mp4", 51),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 1\nb.mp4\n", r"line 2: 'b.mp4' is not 'name.mp4 label'"),
        ("a.mp4 -1\n", "line 1"),
        ("a.mp4 52\n", "label 52 must be below 52"),
        ("a.mp4 1\na.mp4 2\n", "line 2: a.mp4 is listed a second time"),
        ("a.mp4 1\n./a.mp4 2\n", "line 2: a.mp4 is listed a second time"),
        ("a.mp4 1\nb.mp4 3 7\n", "line 2: 'b.mp4 3 7' has more than one number after the name"),
        ("a.mp4,1\n", "line 1: 'a.mp4,1' is not 'name.mp4 label'"),
        ("\n", "lists no clips"),
    ],
)
def test_an_invalid_list_raises_an_error_that_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_list(write(tmp_path, text), "videos", 52)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf0001_a.mp4 0\n0002_b.mp4 1\n",
        b"0001_a.mp4 0\r\n0002_b.mp4 1\r\n",
        b"0001_a.mp4  0\n0002_b.mp4   1\n",
        b"0001_a.mp4\t0\n  ./0002_b.mp4 \t 1 \n",
    ],
)
def test_lists_are_read_as_editors_save_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    clips = read_list(str(tmp_path / "list.txt"), "/videos", 52)
    assert clips == [
        Clip("0001_a.mp4", "/videos/0001_a.mp4", 0, subject="0001"),
        Clip("0002_b.mp4", "/videos/0002_b.mp4", 1, subject="0002"),
    ]


def test_names_may_be_absolute_or_uris(tmp_path: Path) -> None:
    text = "/videos/a.mp4 1\n/other/a.mp4 2\ns3://bucket/train/c.mp4 3\n"
    clips = read_list(write(tmp_path, text), "/videos", 52)
    assert clips == [
        Clip("a.mp4", "/videos/a.mp4", 1),
        Clip("/other/a.mp4", "/other/a.mp4", 2),
        Clip("s3://bucket/train/c.mp4", "s3://bucket/train/c.mp4", 3),
    ]
    with pytest.raises(ManifestError, match=r"line 2: a.mp4 is listed a second time"):
        read_list(write(tmp_path, "a.mp4 1\nfile:///videos/a.mp4 2\n"), "/videos", 52)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 1\n".encode("utf-16"), "is a text file in UTF-16: save it as UTF-8"),
        (b"a.mp4 1\nma\xeftre.mp4 2\n", "line 2: it is not text in UTF-8"),
    ],
)
def test_lists_in_other_encodings_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_list(str(tmp_path / "list.txt"), "videos", 52)


def test_the_error_for_a_missing_list_describes_the_format(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no list file at .*holds a line 'name.mp4 label' per clip"):
        read_list(str(tmp_path / "absent.txt"), "videos", 52)


@pytest.mark.parametrize(("split", "count"), [("train", 11_250), ("val", 5_586), ("test", 5_586)])
def test_the_lists_of_the_dataset_are_read(shared: Path, split: str, count: int) -> None:
    assert len(read_list(str(shared / f"data/ma52/{split}_list_videos.txt"), "videos", 52)) == count


def test_a_table_lists_clips_and_their_regions(tmp_path: Path) -> None:
    regions = {
        "region_left": [None, 4],
        "region_top": [None, 0],
        "region_width": [None, 64],
        "region_height": [None, 70],
    }
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"name": ["a.mp4", "b.mp4"], "label": [1, 2], **regions}), path)
    clips = read_list(str(path), "videos", 52)
    assert clips == [Clip("a.mp4", "videos/a.mp4", 1), Clip("b.mp4", "videos/b.mp4", 2, Region(4, 0, 64, 70))]
    pq.write_table(pa.table({"name": ["a.mp4"], "label": [1], "region_left": [4]}), path)
    with pytest.raises(ManifestError, match="row 1: give all of region_left, region_top"):
        read_list(str(path), "videos", 52)
    pq.write_table(pa.table({"clip": ["a.mp4"], "label": [1]}), path)
    with pytest.raises(ManifestError, match="row 1: it must have a name"):
        read_list(str(path), "videos", 52)
    path.write_text("a.mp4 1")
    with pytest.raises(ManifestError, match="is not a Parquet file"):
        read_list(str(path), "videos", 52)


def test_the_subject_is_in_its_column_or_else_in_the_name(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    names = {"name": ["0007_01_0001.mp4", "x/0008_01.mp4", "c.mp4"], "label": [1, 2, 3]}
    pq.write_table(pa.table(names), path)
    assert [clip.subject for clip in read_list(str(path), "videos", 52)] == ["0007", "0008", None]
    pq.write_table(pa.table(names | {"subject": [12, None, 13]}), path)
    assert [clip.subject for clip in read_list(str(path), "videos", 52)] == ["12", None, "13"]
