"""Paths and URIs alike: every byte that the project reads or writes, but Ray's own, goes through here.

A location is a local path, `file://…`, `s3://bucket/key` or `gs://bucket/key`. Credentials come from each store's standard
chain, and `AWS_ENDPOINT_URL` names an S3-compatible store. Throttled requests and broken connections are tried again, later
and later; what stays refused is a `StorageError`.
"""

import functools
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
from botocore import exceptions as boto
from botocore.config import Config

from microaction.errors import UsageError

_REMOTE_SCHEMES = ("s3://", "gs://")
ATTEMPTS = 10  # of a request; the waits between them double, up to 20 s
CONNECT_TIMEOUT_S = 5
CREATE_TRIES = 5  # where another's attempt is under way
# Where pyarrow has a store's own word: of S3 what the SDK does not know, else what it does; of Google's storage.
_STORE_SAYS = (
    re.compile(r"Unable to parse ExceptionName: (\w+)"),
    re.compile(r"AWS Error (?:\[code \d+\]|(\w+))"),
    re.compile(r"google::cloud::Status\((\w+)"),
)


class StorageError(UsageError, OSError):
    """A store refuses what it was asked for, or does not answer; the message says what to check."""


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
        scheme, _, path = location.partition("://")
        if scheme == "s3":
            return _s3_filesystem(path.partition("/")[0], _s3_endpoint()), path.rstrip("/")
        filesystem, path = pafs.FileSystem.from_uri(location)
        return filesystem, path.rstrip("/")
    return pafs.LocalFileSystem(), absolute(location)


def _s3_endpoint() -> str:
    """The S3-compatible store that is used in Amazon's place; empty for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


@functools.cache
def _s3_filesystem(bucket: str, endpoint: str) -> Any:
    _trust_plain_uploads()
    with told(f"s3://{bucket}"):
        region = pafs.FileSystem.from_uri(f"s3://{bucket}")[0].region
    parts = urlsplit(endpoint)
    return pafs.S3FileSystem(
        region=region,
        scheme=parts.scheme or None,
        endpoint_override=parts.netloc or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # small files in one request
    )


def open_input(uri: str) -> BinaryIO:
    """Opens a file for ranged, seekable, unbuffered reading. Raises `FileNotFoundError` that names it."""
    try:
        if not is_remote(uri):
            return open(absolute(uri), "rb")
        filesystem, path = open_filesystem(uri)
        with told(uri):
            return cast(BinaryIO, filesystem.open_input_file(path))
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"no file at {uri}") from None


def read_bytes(uri: str) -> bytes:
    """The whole content of a file. Raises `FileNotFoundError` that names it."""
    with open_input(uri) as file, told(uri):
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a file so that readers see all of it or none: object stores do, local files by a renamed temporary."""
    if is_remote(uri):
        filesystem, path = open_filesystem(uri)
        with told(uri), filesystem.open_output_stream(path) as stream:
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
        with told(uri):
            return _create_on_s3(uri, data)
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


def _create_on_s3(uri: str, data: bytes) -> bool:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    for tries_left in reversed(range(CREATE_TRIES)):
        try:
            _s3_client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except boto.ClientError as error:
            answer = error.response["ResponseMetadata"]
            if answer["HTTPStatusCode"] == 412:
                # Was it an earlier try of this very request, whose answer was lost?
                return answer["RetryAttempts"] > 0 and read_bytes(uri) == data
            if answer["HTTPStatusCode"] != 409 or not tries_left:  # 409: another's attempt, which may yet fail
                raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - only so that they do not meet again
        else:
            return True
    raise AssertionError("the last try returns or raises")


def require_writable(uri: str) -> None:
    """Writes a small file beside `uri`, a file to be, and deletes it: whoever will write in hours learns now that they may
    not. Raises `StorageError` or `OSError`."""
    probe = f"{uri}.{uuid.uuid4().hex}.tmp"
    write_bytes(probe, b"may this be written?")
    delete_file(probe)


def version_of(uri: str) -> str:
    """The version of a file as it is now, as listings state it. Raises `FileNotFoundError`, `StorageError`."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with told(uri):
            try:
                return str(_s3_client().head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
            except boto.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    raise FileNotFoundError(f"no file at {uri}") from None
                raise
    return next(list_files(uri)).version


def exists(uri: str) -> bool:
    """Whether a file is at `uri`."""
    return bool(_type_of(uri) == pafs.FileType.File)


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
    with told(location):
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def delete_file(uri: str) -> None:
    """Deletes a file; nothing happens where there is none."""
    if exists(uri):
        filesystem, path = open_filesystem(uri)
        with told(uri):
            filesystem.delete_file(path)


def delete_tree(location: str) -> None:
    """Deletes a folder and all in it; nothing happens where there is none."""
    if not is_remote(location):
        shutil.rmtree(absolute(location), ignore_errors=True)
        return
    if _type_of(location) == pafs.FileType.Directory:
        filesystem, path = open_filesystem(location)
        with told(location):
            filesystem.delete_dir(path)


def point(link: str, target: str) -> None:
    """Makes the local `link` a symbolic link to `target`, a path relative to the link's folder, in one step."""
    temporary = f"{absolute(link)}.{uuid.uuid4().hex}.tmp"
    os.symlink(target, temporary)
    os.replace(temporary, absolute(link))


def _type_of(location: str) -> pafs.FileType:
    filesystem, path = open_filesystem(location)
    with told(location):
        return filesystem.get_file_info(path).type


def _s3_client() -> Any:
    _trust_plain_uploads()
    endpoint = _s3_endpoint()
    if endpoint and "://" not in endpoint:
        raise StorageError(f"AWS_ENDPOINT_URL ({endpoint}) must begin with http:// or https://")
    return _s3_client_of(endpoint)


@functools.cache  # making one takes longer than a request
def _s3_client_of(endpoint: str) -> Any:
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=CONNECT_TIMEOUT_S))


@contextmanager
def told(location: str) -> Iterator[None]:
    """Turns what stores answer into one line that says what to check."""
    try:
        yield
    except boto.ClientError as error:
        raise StorageError(_advice(error.response["Error"]["Code"], location)) from error
    except boto.NoCredentialsError as error:
        raise StorageError(_advice("NoCredentials", location)) from error
    except (boto.ConnectionError, boto.HTTPClientError) as error:
        raise StorageError(_advice("NetworkConnection", location)) from error
    except boto.BotoCoreError as error:
        raise StorageError(f"{location}: {error}") from error
    except OSError as error:
        match = next((match for pattern in _STORE_SAYS if (match := pattern.search(str(error)))), None)
        if match is None or isinstance(error, FileNotFoundError):
            raise
        said = match[1] or str(error)
        # Answers without a body do not say why.
        if said in ("UNKNOWN", "ACCESS_DENIED") and location.startswith("s3://"):
            said = _s3_says(location) or said
        raise StorageError(_advice(said, location)) from error


def _s3_says(location: str) -> str:
    """What the store answers to a request whose answer can say why."""
    try:
        _s3_client().list_objects_v2(Bucket=location.removeprefix("s3://").partition("/")[0], MaxKeys=1)
    except boto.ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def _advice(code: str, location: str) -> str:
    credentials = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of this machine"
    match code.replace("_", "").lower():
        case "nosuchbucket" | "404":
            bucket = location.partition("://")[2].partition("/")[0]
            return f"no bucket {bucket!r} (from {location}); make it, or mend the name"
        case "nocredentials":
            return f"no credentials for {location}: {credentials}"
        case "invalidaccesskeyid" | "signaturedoesnotmatch" | "invalidtoken" | "unauthenticated":
            return f"the credentials for {location} are wrong: {credentials}"
        case "expiredtoken" | "requestexpired" | "tokenrefreshrequired":
            return f"the credentials for {location} have expired: get new ones, and run the same command again"
        case "accessdenied" | "forbidden" | "403" | "allaccessdisabled" | "permissiondenied":
            return f"no access to {location}: these credentials are wrong, or lack the right to it; {credentials}"
        case "networkconnection" | "unavailable":
            return f"{_s3_endpoint() or 'the store'} does not answer (for {location}): check AWS_ENDPOINT_URL and the network"
    return f"{location}: the store answers {code}"


def _trust_plain_uploads() -> None:
    """Newer SDKs add trailing checksums that many S3-compatible stores refuse (HTTP 411); the user's own word goes first."""
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


def _list_s3(prefix: str) -> Iterator[StoredFile]:
    bucket, _, key = prefix.removeprefix("s3://").partition("/")
    with told(prefix):
        pages = _s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        for page in pages:
            for item in page.get("Contents", ()):
                if key in ("", item["Key"]) or item["Key"].startswith(key + "/"):
                    yield StoredFile(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))


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
