"""Files: read, written so that readers see all of one or none, created once, deleted. Local paths and object storage alike."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.fs as pafs

from microaction.storage.errors import translate_errors
from microaction.storage.locations import absolute, is_remote


def open_filesystem(location: str) -> tuple[Any, str]:
    """Return pyarrow's file system of a location, and the path inside it."""
    if not is_remote(location):
        return pafs.LocalFileSystem(), absolute(location)
    scheme, _, path = location.partition("://")
    if scheme == "s3":
        from microaction.storage import s3

        return s3.filesystem_of(path.partition("/")[0]), path.rstrip("/")
    filesystem, path = pafs.FileSystem.from_uri(location)
    return filesystem, path.rstrip("/")


def open_input(uri: str) -> BinaryIO:
    """Open a file for ranged, seekable, unbuffered reading. Raises `FileNotFoundError` that names it."""
    try:
        if not is_remote(uri):
            return open(absolute(uri), "rb")
        if uri.startswith("s3://"):
            from microaction.storage import s3

            if s3.has_unusual_key(uri):
                with translate_errors(uri):
                    return cast(BinaryIO, s3.S3Object(uri))
        filesystem, path = open_filesystem(uri)
        with translate_errors(uri):
            return cast(BinaryIO, filesystem.open_input_file(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f"no file at {uri}") from None


def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file. Raises `FileNotFoundError` that names it."""
    with open_input(uri) as file, translate_errors(uri):
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file so that readers see all of it or none: object stores do, local files through a renamed temporary file."""
    if is_remote(uri):
        filesystem, path = open_filesystem(uri)
        with translate_errors(uri), filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    with translate_errors(uri):
        _write_local(absolute(uri), data)


def _write_local(path: str, data: bytes) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Create a file unless it exists: of several concurrent callers one gets True.

    On gs:// this takes two requests: two callers within the same moment may both get True there.
    """
    if uri.startswith("s3://"):
        from microaction.storage import s3

        with translate_errors(uri):
            return s3.put_if_absent(uri, data)
    if is_remote(uri):
        if exists(uri):
            return False
        write_bytes(uri, data)
        return True
    temporary = f"{absolute(uri)}.{uuid.uuid4().hex}.tmp"
    with translate_errors(uri):
        _write_local(temporary, data)
        try:
            os.link(temporary, absolute(uri))
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
    return True


def check_writable(uri: str) -> None:
    """Write and delete a small file beside `uri`, so that a command that writes in hours fails now if it may not.

    Raises `StorageError` or `OSError`.
    """
    probe, data = f"{uri}.{uuid.uuid4().hex}.tmp", b"microaction checks that it may write here"
    if is_remote(uri):
        write_bytes(probe, data)
    else:
        with translate_errors(uri):
            _write_local(absolute(probe), data)
    delete_file(probe)


def exists(uri: str) -> bool:
    """Return whether a file is at `uri`."""
    return bool(_type_of(uri) == pafs.FileType.File)


def delete_file(uri: str) -> None:
    """Delete a file, if it exists."""
    if exists(uri):
        filesystem, path = open_filesystem(uri)
        with translate_errors(uri):
            filesystem.delete_file(path)


def delete_tree(location: str) -> None:
    """Delete a folder and everything in it, if it exists."""
    if not is_remote(location):
        shutil.rmtree(absolute(location), ignore_errors=True)
        return
    if _type_of(location) == pafs.FileType.Directory:
        filesystem, path = open_filesystem(location)
        with translate_errors(location):
            filesystem.delete_dir(path)


def replace_symlink(link: str, target: str) -> None:
    """Make the local `link` a symbolic link to `target`, a path relative to the link's folder, in one step."""
    temporary = f"{absolute(link)}.{uuid.uuid4().hex}.tmp"
    os.symlink(target, temporary)
    os.replace(temporary, absolute(link))


def _type_of(location: str) -> pafs.FileType:
    filesystem, path = open_filesystem(location)
    with translate_errors(location):
        return filesystem.get_file_info(path).type
