"""Files: read, written so that readers see all of one or none, created once, deleted. Local paths and object storage alike."""

import errno
import mimetypes
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.fs as pafs

from microaction.storage.errors import local_error, translate_errors
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
        metadata = {"Content-Type": content_type(uri)}
        with translate_errors(uri), filesystem.open_output_stream(path, metadata=metadata) as stream:
            stream.write(data)
        return
    with translate_errors(uri):
        _write_local(absolute(uri), data, uri)


def _write_local(path: str, data: bytes, location: str) -> None:
    with _replaced_file(path, location) as file:
        file.write(data)


@contextmanager
def open_output(uri: str) -> Iterator[BinaryIO]:
    """Open a file to write it piece by piece; readers see all of it when the block ends, and nothing if the block raises.

    What goes to object storage is first a temporary file here, since streams to a store publish what they have when they are
    closed, for whatever reason. Raises as `write_bytes`.
    """
    if not is_remote(uri):
        with _full_disk_reported(uri), _replaced_file(absolute(uri), uri) as file:
            yield file
        return
    with _full_disk_reported(tempfile.gettempdir()), tempfile.TemporaryFile() as temporary:
        yield cast(BinaryIO, temporary)
        temporary.seek(0)
        with translate_errors(uri):
            _upload(uri, cast(BinaryIO, temporary))


@contextmanager
def _replaced_file(path: str, location: str) -> Iterator[BinaryIO]:
    """Yield a temporary file beside a local one, which it replaces if the block does not raise; errors name `location`."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with translate_errors(location):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            opened = open(temporary, "wb")  # noqa: SIM115 - closed by the next block, whose errors may be the caller's
        with opened as file:
            yield file
            with translate_errors(location):
                file.flush()
                os.fsync(file.fileno())
        with translate_errors(location):
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it was renamed, or could not be created
            os.unlink(temporary)


@contextmanager
def _full_disk_reported(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise cast(OSError, local_error(error, location)) from error


def content_type(uri: str) -> str:
    """Return the media type that a file's suffix stands for: browsers show pages from a store as what it calls them."""
    guessed, _ = mimetypes.guess_type(f"file.{uri.rpartition('.')[2]}")
    if guessed is None:
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def _upload(uri: str, file: BinaryIO) -> None:
    if uri.startswith("s3://"):
        from microaction.storage import s3

        s3.upload(uri, file, content_type(uri))
        return
    filesystem, path = open_filesystem(uri)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with filesystem.open_output_stream(temporary, metadata={"Content-Type": content_type(uri)}) as stream:
            shutil.copyfileobj(file, stream)
        filesystem.move(temporary, path)
    except BaseException:
        if filesystem.get_file_info(temporary).type == pafs.FileType.File:
            filesystem.delete_file(temporary)
        raise


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
        _write_local(temporary, data, uri)
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
            _write_local(absolute(probe), data, uri)
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


def presigned_url(uri: str, expires_s: int) -> str:
    """Return a URL that anybody may read an `s3://` object with for a while. Raises `StorageError` without credentials."""
    from microaction.storage import s3

    with translate_errors(uri):
        return s3.presigned_url(uri, expires_s)


def _type_of(location: str) -> pafs.FileType:
    filesystem, path = open_filesystem(location)
    with translate_errors(location):
        return filesystem.get_file_info(path).type
