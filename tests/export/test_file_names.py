"""Names of files about videos, whatever the videos are called."""

import re
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.export.file_names import MAX_COMPONENT_BYTES, file_names, path_between, write_files
from microaction.export.labels import Event, Selection, read_labels
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

MORE_HOSTILE = (
    "../../etc/passwd.mp4",
    "..",
    "/absolute/one.mp4",
    "s3://other/one.mp4",
    "a/../b.mp4",
    "CON.mp4",
    "aux/nul.tar.mp4",
    "com1",
    "folder. /one.mp4",
    "é" * 300 + ".mp4",
    "🙂" * 70 + "/" + "🙂" * 70 + ".mp4",
    ".mp4",
    "",
    "lone\ud800.mp4",
    "back\\slash:colon.mp4",
    "-rf.mp4",
)
REFUSED = re.compile(r'[\\:*?"<>|]')
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}


def assert_fit(path: str, suffix: str) -> None:
    """Assert that every file system takes a path, and that it stays below its folder."""
    assert path.endswith(suffix)
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= MAX_COMPONENT_BYTES
        assert not REFUSED.search(part)
        assert not part.endswith((".", " "))
        assert part.partition(".")[0].lower() not in DEVICES
        assert {unicodedata.category(c) for c in part}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
        assert {unicodedata.bidirectional(c) for c in part}.isdisjoint(
            {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        )


def on_a_mac(path: str) -> str:
    return unicodedata.normalize("NFD", path).casefold()


def test_the_suffix_is_replaced_unless_two_differ_in_it() -> None:
    assert file_names(["a/one.mp4", "one.mp4", "two.MP4", "three"], ".eaf") == {
        "a/one.mp4": "a/one.eaf",
        "one.mp4": "one.eaf",
        "two.MP4": "two.eaf",
        "three": "three.eaf",
    }
    assert file_names(["a/one.mp4", "a/one.avi", "b/one.mp4"], ".eaf") == {
        "a/one.mp4": "a/one.mp4.eaf",
        "a/one.avi": "a/one.avi.eaf",
        "b/one.mp4": "b/one.eaf",
    }


def test_hostile_names_become_fit_ones() -> None:
    paths = file_names([*HOSTILE_NAMES, *MORE_HOSTILE], ".eaf")
    for path in paths.values():
        assert_fit(path, ".eaf")
    assert len({on_a_mac(path) for path in paths.values()}) == len(paths)
    assert paths["../../etc/passwd.mp4"] == "__/__/etc/passwd.eaf"
    assert paths["CON.mp4"] == "_CON.eaf"
    assert paths["emoji 🙂 ü.mp4"] == "emoji 🙂 ü.eaf", "what is harmless stays"


@pytest.mark.parametrize(
    "names",
    [
        ("One.mp4", "one.mp4"),
        ("u\u0308.mp4", "\u00fc.mp4"),
        ("a?.mp4", "a*.mp4", "a_.mp4"),
        ("one.mp4", "one.avi", "one.mp4.mkv"),
        ("one.mp4", "one.eaf/two.mp4"),
        ("x" * 250 + "1.mp4", "x" * 250 + "2.mp4"),
        ("./one.mp4", "one.mp4", "//one.mp4"),
    ],
)
def test_no_two_videos_have_one_file(names: tuple[str, ...]) -> None:
    paths = file_names(names, ".eaf")
    files = {on_a_mac(path) for path in paths.values()}
    assert len(files) == len(names)
    folders = {file.rsplit("/", depth)[0] for file in files for depth in range(1, file.count("/") + 1)}
    assert not files & folders, "nor is a file where a folder has to be"


NAMES = st.lists(
    st.one_of(
        st.text("aA./_\u0301é?:1 \n🙂", max_size=12),
        st.text(st.characters(), max_size=300),
        st.sampled_from(HOSTILE_NAMES + MORE_HOSTILE),
    ),
    max_size=12,
    unique=True,
)


@given(NAMES, st.randoms())
def test_any_names_become_different_fit_ones_in_any_order(names: list[str], random: Random) -> None:
    paths = file_names(names, ".vtt")
    assert set(paths) == set(names)
    for path in paths.values():
        assert_fit(path, ".vtt")
    assert len({on_a_mac(path) for path in paths.values()}) == len(names)
    random.shuffle(names)
    assert file_names(names, ".vtt") == paths


def test_relative_paths_are_between_files_of_one_store() -> None:
    assert path_between("/x/out/a", "/x/videos/one.mp4") == "../../videos/one.mp4"
    assert path_between("/x", "/x/=one.mp4") == "./=one.mp4"
    assert path_between("/", "/one.mp4") == "./one.mp4"
    assert path_between("s3://b/out", "s3://b/videos/one.mp4") == "../videos/one.mp4"
    assert path_between("s3://b", "s3://b/one.mp4") == "./one.mp4"
    assert path_between("s3://b/out", "s3://c/one.mp4") is None
    assert path_between("s3://b/out", "/one.mp4") is None
    assert path_between("/out", "gs://b/one.mp4") is None


def test_files_are_where_they_are_whatever_is_selected(tmp_path: Path) -> None:
    events = [Event(1, 9, 0.5, 1.5, 0.7, 0.8)]
    videos = [Video("one.mp4", events), Video("one.avi", events), Video("bad.mp4", duration_s=None)]
    labels = read_labels(str(write_output(tmp_path / "out", "/archive", videos)))

    def write(name: str, selection: Selection) -> tuple[list[str], tuple[int, int], tuple[str, ...]]:
        dest = tmp_path / name
        written = write_files(
            labels, labels.each_video(selection), str(dest), ".txt", lambda video, _: video.uri.encode()
        )
        counts = written.num_videos, written.num_events
        return sorted(path.name for path in dest.rglob("*")), counts, written.locations

    all_files, all_counts, all_locations = write("all", Selection())
    assert (all_files, all_counts) == (["one.avi.txt", "one.mp4.txt"], (2, 2)), (
        "none about a video that cannot be opened"
    )
    assert all_locations == (str(tmp_path / "all"),)
    one_file, one_count, one_location = write("one", Selection(videos=["one.mp4"]))
    assert (one_file, one_count) == (["one.mp4.txt"], (1, 1))
    assert one_location == (str(tmp_path / "one" / "one.mp4.txt"),)
    assert (tmp_path / "one" / "one.mp4.txt").read_text() == "/archive/one.mp4"
