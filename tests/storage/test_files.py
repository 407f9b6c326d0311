import errno
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs as pafs
import pytest

from microaction import storage
from microaction.errors import EXIT_RETRY, EXIT_USAGE
from microaction.storage import StorageError, files


def test_paths_become_absolute_and_uris_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("in/x") == str(tmp_path / "in/x")
    assert storage.absolute(f"file://{tmp_path}/in/") == str(tmp_path / "in")
    assert storage.absolute("s3://bucket/in/") == "s3://bucket/in"


def test_listings_are_sorted_and_skip_hidden_and_partial_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.mp4", "b/a.mp4", ".hidden.mp4", "a.mp4", "a.mp4.123.tmp"):
        (tmp_path / name).write_bytes(b"x")
    files = list(storage.list_files(str(tmp_path)))
    assert [file.uri for file in files] == [str(tmp_path / name) for name in ("a.mp4", "b/a.mp4", "z.mp4")]
    assert files[0].size_bytes == 1


def test_a_file_deleted_during_the_listing_is_skipped(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    listing = storage.list_files(str(tmp_path))
    assert next(listing).uri.endswith("a")
    (tmp_path / "b").unlink()
    assert [file.uri for file in listing] == [str(tmp_path / "c")]


def test_a_version_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    (before,) = storage.list_files(str(tmp_path))
    path.write_bytes(b"two")
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
    (after,) = storage.list_files(str(tmp_path))
    assert before.version != after.version


def test_an_empty_listing_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no files below .*/nowhere: check the spelling"):
        list(storage.list_files(str(tmp_path / "nowhere")))


def test_a_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "new/folder/file"), b"data")
    assert storage.read_bytes(str(tmp_path / "new/folder/file")) == b"data"
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "write", [storage.write_bytes, storage.put_if_absent, lambda uri, _: storage.check_writable(uri)]
)
def test_folders_that_cannot_hold_a_file_are_one_line(tmp_path: Path, write: Callable[[str, bytes], object]) -> None:
    (tmp_path / "file").write_bytes(b"x")
    uri = str(tmp_path / "file/below")
    with pytest.raises(
        StorageError, match=f"^{uri} cannot be used: a part of its path is a file, not a folder$"
    ) as error:
        write(uri, b"data")
    assert error.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("code", "message", "exit_code"),
    [
        (errno.ENOSPC, "no space left for {}: free some, then run the same command again", EXIT_RETRY),
        (errno.EROFS, "{} cannot be used: read-only file system", EXIT_USAGE),
        (errno.EACCES, "{} cannot be used: permission denied", EXIT_USAGE),
    ],
)
def test_full_disks_and_closed_folders_are_one_line(
    code: int, message: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    uri = str(tmp_path / "file")
    with pytest.raises(StorageError) as error:
        storage.write_bytes(uri, b"data")
    assert (str(error.value), error.value.exit_code) == (message.format(uri), exit_code)
    assert list(tmp_path.iterdir()) == [], "nothing half-written is left"


def test_a_streamed_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    with storage.open_output(str(path)) as file:
        file.write(b"one ")
        file.write(b"two")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"one two"
    assert list(path.parent.iterdir()) == [path]


def test_a_stream_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half(str(path), error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_during_a_stream_is_one_line(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    with pytest.raises(StorageError, match=f"^no space left for {uri}: free some"), storage.open_output(uri):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_stream_to_a_store_is_uploaded_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder in place of the store."""
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(files, "open_filesystem", lambda uri: (store, uri.removeprefix("gs://")))
    with storage.open_output("gs://file") as file:
        file.write(b"data")
        assert list(tmp_path.iterdir()) == []
    assert (tmp_path / "file").read_bytes() == b"data"
    with pytest.raises(KeyboardInterrupt):
        write_half("gs://file", KeyboardInterrupt)
    monkeypatch.setattr(shutil, "copyfileobj", copy_half)
    with pytest.raises(ConnectionError), storage.open_output("gs://file") as file:
        file.write(b"half")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def write_half(uri: str, error: type[BaseException]) -> None:
    with storage.open_output(uri) as file:
        file.write(b"half")
        file.flush()
        raise error


def copy_half(source: BinaryIO, stream: BinaryIO) -> None:
    stream.write(source.read(2))
    raise ConnectionError


def test_reading_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file at .*/missing"):
        storage.read_bytes(str(tmp_path / "missing"))


def test_only_one_of_many_concurrent_creations_succeeds(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep/term")
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: storage.put_if_absent(uri, bytes([i])), range(32)))
    assert created.count(True) == 1
    assert storage.read_bytes(uri) == bytes([created.index(True)])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["term"], "no temporary file is left"


def test_a_symlink_is_replaced_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        storage.replace_symlink(str(tmp_path / "link"), name)
        assert (tmp_path / "link").resolve() == tmp_path / name
    assert storage.list_folders(str(tmp_path)) == ["link", "one", "two"]
    assert storage.list_folders(str(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            "When reading information for key 'a': AWS Error UNKNOWN (HTTP status 400) during GetObject operation: Unable "
            "to parse ExceptionName: ExpiredToken Message: The provided token has expired.",
            "the credentials for gs://b/a have expired",
        ),
        ("AWS Error ACCESS_DENIED during GetObject operation: Access Denied", "no access to gs://b/a"),
        ("google::cloud::Status(PERMISSION_DENIED: Permission denied)", "no access to gs://b/a"),
        ("google::cloud::Status(UNAUTHENTICATED: no)", "the credentials for gs://b/a are wrong"),
        ("google::cloud::Status(INTERNAL: no)", "gs://b/a: the store answers INTERNAL"),
    ],
)
def test_store_errors_say_what_to_check(response: str, message: str) -> None:
    with pytest.raises(storage.StorageError, match=message), storage.translate_errors("gs://b/a"):
        raise OSError(response)


def test_whether_a_location_is_writable_is_known_in_advance(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "new/catalog.parquet"))
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        storage.check_writable(str(tmp_path / "file/catalog.parquet"))


def test_a_files_version_is_that_of_its_listing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (listed,) = storage.list_files(str(tmp_path))
    assert storage.version_of(str(tmp_path / "a")) == listed.version
    (tmp_path / "a").write_text("another")
    assert storage.version_of(str(tmp_path / "a")) != listed.version
    with pytest.raises(FileNotFoundError, match="no file"):
        storage.version_of(str(tmp_path / "b"))
