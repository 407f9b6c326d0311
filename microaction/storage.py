"""Paths and URIs alike: every byte that the project reads or writes, but Ray's own, goes through here.

A location is a local path, `file://…`, `s3://bucket/key` or `gs://bucket/key`. Credentials come from each store's standard
chain, and `AWS_ENDPOINT_URL` names an S3-compatible store.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
import pyarrow.fs as pafs

_REMOTE_SCHEMES = ("s3://", "gs://")


@dataclass(frozen=True)
class StoredFile:
    """A file of a listing. `version` is new when the content is: the ETag, or size and modification time."""

    uri: str
    size_bytes: int
    version: str


def is_remote(location: str) -> bool:
    return location.startswith(_REMOTE_SCHEMES)


def absolute(location: str) -> str:
    """The location as every node may name it: URIs without a trailing slash, local paths absolute."""
    if is_remote(location):
        return location.rstrip("/")
    return os.path.abspath(os.path.expanduser(location.removeprefix("file://")))


def join(location: str, *names: str) -> str:
    return "/".join([location.rstrip("/"), *names])


def open_filesystem(location: str) -> tuple[Any, str]:
    """The pyarrow file system of a location, and the path inside it."""
    if is_remote(location):
        _trust_plain_uploads()
        filesystem, path = pafs.FileSystem.from_uri(location)
        return filesystem, path.rstrip("/")
    return pafs.LocalFileSystem(), absolute(location)


def open_input(uri: str) -> BinaryIO:
    """Opens a file for ranged, seekable, unbuffered reading. Raises `FileNotFoundError` that names it."""
    try:
        if not is_remote(uri):
            return open(absolute(uri), "rb")
        filesystem, path = open_filesystem(uri)
        return cast(BinaryIO, filesystem.open_input_file(path))
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"no file at {uri}") from None


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises `FileNotFoundError` that names it."""
    with open_input(uri) as file:
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a file so that readers see all of it or none: object stores do, local files by a renamed temporary."""
    if is_remote(uri):
        filesystem, path = open_filesystem(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    path = absolute(uri)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def create(uri: str, data: bytes) -> bool:
    """Writes a file unless there is one: of several that try at once, one gets True.

    On gs:// that takes two steps: there, two within the same moment may both get True.
    """
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        client = _s3_client()
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            # 409: another's attempt was under way at the same time.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                return False
            raise
        return True
    if is_remote(uri):
        if exists(uri):
            return False
        write_bytes(uri, data)
        return True
    temporary = f"{absolute(uri)}.{uuid.uuid4().hex}.tmp"
    write_bytes(temporary, data)
    try:
        os.link(temporary, absolute(uri))
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def exists(uri: str) -> bool:
    """Whether a file is at `uri`."""
    filesystem, path = open_filesystem(uri)
    return bool(filesystem.get_file_info(path).type == pafs.FileType.File)


def list_files(prefix: str) -> Iterator[StoredFile]:
    """Every file below a prefix, in order of name, page by page. Raises `FileNotFoundError` if nothing is there.

    A prefix is a folder: `s3://bucket/in` lists `in/a.mp4` and never `inner/b.mp4`. If it is one file's name, that file is
    listed. Names that begin with a dot and half-written local files (`.tmp`) are left out.
    """
    prefix = absolute(prefix)
    if prefix.startswith("s3://"):
        listing = _list_s3(prefix)
    elif is_remote(prefix):
        listing = _list_arrow(prefix)
    else:
        listing = _list_local(prefix)
    found = False
    for file in listing:
        found = True
        name = file.uri.rsplit("/", 1)[-1]
        if not name.startswith(".") and not name.endswith(".tmp"):
            yield file
    if not found:
        raise FileNotFoundError(f"no files below {prefix}: check the spelling, or put files there")


def list_folders(location: str) -> list[str]:
    """Names of the folders right below a folder, in order; none where there is no folder."""
    filesystem, path = open_filesystem(location)
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def delete_file(uri: str) -> None:
    """Deletes a file; nothing happens where there is none."""
    filesystem, path = open_filesystem(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.File:
        filesystem.delete_file(path)


def delete_tree(location: str) -> None:
    """Deletes a folder and all in it; nothing happens where there is none."""
    if not is_remote(location):
        shutil.rmtree(absolute(location), ignore_errors=True)
        return
    filesystem, path = open_filesystem(location)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def point(link: str, target: str) -> None:
    """Makes the local `link` a symbolic link to `target`, a path relative to the link's folder, in one step."""
    temporary = f"{absolute(link)}.{uuid.uuid4().hex}.tmp"
    os.symlink(target, temporary)
    os.replace(temporary, absolute(link))


def _s3_client() -> Any:
    _trust_plain_uploads()
    return boto3.client("s3")


def _trust_plain_uploads() -> None:
    """Newer SDKs add trailing checksums that many S3-compatible stores refuse (HTTP 411); the user's own word goes first."""
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


def _list_s3(prefix: str) -> Iterator[StoredFile]:
    bucket, _, key = prefix.removeprefix("s3://").partition("/")
    client = _s3_client()
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", ()):
                if key in ("", item["Key"]) or item["Key"].startswith(key + "/"):
                    yield StoredFile(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))
    except client.exceptions.NoSuchBucket:
        raise FileNotFoundError(f"no bucket {bucket!r} (from {prefix})") from None


def _list_arrow(prefix: str) -> Iterator[StoredFile]:
    filesystem, path = open_filesystem(prefix)
    scheme = prefix[: prefix.index("://") + 3]
    infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    for info in sorted(infos, key=lambda info: info.path):
        if info.type == pafs.FileType.File:
            yield StoredFile(scheme + info.path, info.size, f"{info.size}-{info.mtime_ns}")


def _list_local(prefix: str) -> Iterator[StoredFile]:
    if os.path.isfile(prefix):
        yield _local_file(prefix)
        return
    if not os.path.isdir(prefix):
        return
    with os.scandir(prefix) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _list_local(entry.path)
            elif entry.is_file():
                try:
                    file = _local_file(entry.path)
                except FileNotFoundError:  # deleted since it was listed
                    continue
                yield file


def _local_file(path: str) -> StoredFile:
    stat = os.stat(path)
    return StoredFile(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
