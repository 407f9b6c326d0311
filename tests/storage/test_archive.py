"""The files of an archive: every content once, whatever names and links lead to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microaction.storage import ArchiveListing, list_files


def put(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def listed(folder: Path) -> dict[str, str]:
    """Return the names and reasons of an archive's files."""
    files = [(file.uri.removeprefix(f"{folder}/"), file.reason) for file in ArchiveListing(str(folder))]
    assert len(dict(files)) == len(files), "no name occurs twice"
    return dict(files)


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", ".Trash/b.mp4", ".Trash/c.mp4", "d/.e.mp4", "._a.mp4", "f.mp4.123.tmp", "g/..h.mp4"):
        put(tmp_path / name)
    archive = ArchiveListing(str(tmp_path))
    assert [file.uri for file in archive] == [str(tmp_path / "a.mp4")]
    assert archive.num_hidden == 5


def test_files_of_git_annex_count_under_the_names_of_their_links(tmp_path: Path) -> None:
    put(tmp_path / ".git/annex/objects/aa/aa.mp4")
    (tmp_path / "one.mp4").symlink_to(".git/annex/objects/aa/aa.mp4")
    (tmp_path / "same.mp4").symlink_to(".git/annex/objects/aa/aa.mp4")
    (tmp_path / "two.mp4").symlink_to(".git/annex/objects/bb/bb.mp4")
    found = listed(tmp_path)
    assert found == {
        "one.mp4": "",
        "two.mp4": "its content is not here: it is a link to .git/annex/objects/bb/bb.mp4, which does not exist; "
        "`git annex get` fetches it",
    }


def test_a_link_and_its_target_count_once(tmp_path: Path) -> None:
    put(tmp_path / "in/z.mp4")
    put(tmp_path / "outside/o.mp4")
    (tmp_path / "in/a.mp4").symlink_to("z.mp4")
    (tmp_path / "in/b.mp4").symlink_to(tmp_path / "outside/o.mp4")
    (tmp_path / "in/c.mp4").symlink_to("b.mp4")
    os.link(tmp_path / "in/z.mp4", tmp_path / "in/y.mp4")
    assert listed(tmp_path / "in") == {"y.mp4": "", "b.mp4": ""}


def test_linked_folders_count_once_and_cycles_end(tmp_path: Path) -> None:
    put(tmp_path / "in/2024/one.mp4")
    put(tmp_path / "outside/deep/two.mp4")
    (tmp_path / "in/latest").symlink_to("2024")
    (tmp_path / "in/2024/up").symlink_to("..")
    (tmp_path / "in/a").symlink_to(tmp_path / "outside/deep")
    (tmp_path / "in/b").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/self.mp4").symlink_to("self.mp4")
    found = listed(tmp_path / "in")
    assert {name for name, reason in found.items() if not reason} == {"2024/one.mp4", "b/deep/two.mp4"}
    assert found["self.mp4"].startswith("its content cannot be reached: it is a link to self.mp4: too many levels")


def test_a_link_to_a_folder_above_the_archive_lists_nothing_twice(tmp_path: Path) -> None:
    put(tmp_path / "loop/a/one.mp4")
    put(tmp_path / "loop/two.mp4")
    (tmp_path / "loop/a/up").symlink_to("..")
    assert listed(tmp_path / "loop/a") == {"one.mp4": "", "up/two.mp4": ""}
    assert len(list(list_files(str(tmp_path / "loop/a")))) == 2


def test_what_is_no_file_has_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert listed(tmp_path) == {"pipe.mp4": "it is neither a file nor a folder"}


def test_the_archive_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real/a.mp4")
    (tmp_path / "real/b.mp4").symlink_to("a.mp4")
    (tmp_path / "link").symlink_to("real")
    assert listed(tmp_path / "link") == {"a.mp4": ""}


def test_names_that_are_not_utf8_have_a_reason(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/ma\xeftre.mp4")).write_bytes(b"x")
    put(tmp_path / "other.mp4")
    assert listed(tmp_path) == {
        "ma\\xeftre.mp4": "its name is not UTF-8: rename the file or folder, then run again",
        "other.mp4": "",
    }


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_closed_folder_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    put(folder / "ethics/one.mp4")
    put(folder / "two.mp4")
    (folder / "ethics").chmod(0)
    for parent in (folder, *folder.parents):
        parent.chmod(parent.stat().st_mode | 0o055)
    code = f"""
import os
os.setuid(65534)
from microaction.storage import ArchiveListing
print([(file.uri, file.reason) for file in ArchiveListing({str(folder)!r})])
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Imported as root: others may not read the interpreter's modules.
    code = "import microaction.storage.archive\n" + code
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert result.stdout.strip() == str(
        [(f"{folder}/ethics/", "the folder cannot be opened: permission denied"), (f"{folder}/two.mp4", "")]
    )


def test_an_empty_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no files below .*/nowhere: check the spelling"):
        listed(tmp_path / "nowhere")
