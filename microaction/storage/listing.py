"""What lies below a location."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.fs as pafs

from microaction.storage.errors import translate_errors
from microaction.storage.files import open_filesystem
from microaction.storage.locations import absolute, is_remote


@dataclass(frozen=True)
class StoredFile:
    """A file of a listing. `version` changes with the content: the ETag, or size and modification time."""

    uri: str
    size_bytes: int
    version: str


def list_files(prefix: str) -> Iterator[StoredFile]:
    """Yield every file below a prefix, in order of name, page by page. Raises `FileNotFoundError` if there is none.

    A prefix is a folder: `s3://bucket/in` lists `in/a.mp4` and never `inner/b.mp4`. The name of one file lists that file.
    Names that begin with a dot and half-written local files (`.tmp`) are left out.
    """
    prefix = absolute(prefix)
    is_empty = True
    for file in list_remote(prefix) if is_remote(prefix) else _list_local(prefix):
        is_empty = False
        name = file.uri.rsplit("/", 1)[-1]
        if not name.startswith(".") and not name.endswith(".tmp"):
            yield file
    if is_empty:
        raise FileNotFoundError(f"no files below {prefix}: check the spelling, or put files there")


def list_remote(prefix: str) -> Iterator[StoredFile]:
    """Yield every object below a prefix of an object store, in order of name, page by page."""
    return _list_s3(prefix) if prefix.startswith("s3://") else _list_arrow(prefix)


def list_folders(location: str) -> list[str]:
    """Return the names of the folders directly below a folder, in order; none if it does not exist."""
    filesystem, path = open_filesystem(location)
    with translate_errors(location):
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def version_of(uri: str) -> str:
    """Return the present version of a file, as listings state it. Raises `FileNotFoundError` and `StorageError`."""
    if uri.startswith("s3://"):
        from microaction.storage import s3

        with translate_errors(uri):
            return s3.etag(uri)
    return next(list_files(uri)).version


def _list_s3(prefix: str) -> Iterator[StoredFile]:
    from microaction.storage import s3

    return (StoredFile(*item) for item in s3.list_objects(prefix))


def _list_arrow(prefix: str) -> Iterator[StoredFile]:
    filesystem, path = open_filesystem(prefix)
    scheme = prefix[: prefix.index("://") + 3]
    infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    for info in sorted(infos, key=lambda info: info.path):
        if info.type == pafs.FileType.File:
            yield StoredFile(scheme + info.path, info.size, f"{info.size}-{info.mtime_ns}")


def _list_local(prefix: str, ancestors: tuple[str, ...] = ()) -> Iterator[StoredFile]:
    if os.path.isfile(prefix):
        yield _local_file(prefix)
        return
    if not os.path.isdir(prefix):
        return
    ancestors = (*ancestors, os.path.realpath(prefix))
    with translate_errors(prefix), os.scandir(prefix) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            if os.path.realpath(entry.path) not in ancestors:  # a link to a folder above
                yield from _list_local(entry.path, ancestors)
        elif entry.is_file():
            try:
                file = _local_file(entry.path)
            except FileNotFoundError:  # deleted since it was listed
                continue
            yield file


def _local_file(path: str) -> StoredFile:
    stat = os.stat(path)
    return StoredFile(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
