"""S3 and stores that are compatible with it. boto3 is imported here alone, and only when an s3:// location is used."""

import functools
import io
import os
import random
import time
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
from botocore import exceptions as boto
from botocore.config import Config

from microaction.storage.errors import StorageError, s3_endpoint, translate_errors

MAX_ATTEMPTS = 10  # of a request; the waits between them double, up to 20 s
CONNECT_TIMEOUT_S = 5
MAX_PUT_ATTEMPTS = 5  # while another writer's attempt is under way
HTTP_NOT_FOUND, HTTP_CONFLICT, HTTP_PRECONDITION_FAILED = 404, 409, 412


def filesystem_of(bucket: str) -> Any:
    """Return pyarrow's file system for a bucket."""
    return _filesystem(bucket, s3_endpoint())


@functools.cache
def _filesystem(bucket: str, endpoint: str) -> Any:
    _disable_trailing_checksums()
    with translate_errors(f"s3://{bucket}"):
        region = pafs.FileSystem.from_uri(f"s3://{bucket}")[0].region
    parts = urlsplit(endpoint)
    return pafs.S3FileSystem(
        region=region,
        scheme=parts.scheme or None,
        endpoint_override=parts.netloc or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
        allow_delayed_open=True,  # small files in one request
    )


def client() -> Any:
    """Return boto3's client for the endpoint of the environment."""
    _disable_trailing_checksums()
    endpoint = s3_endpoint()
    if endpoint and "://" not in endpoint:
        raise StorageError(f"AWS_ENDPOINT_URL ({endpoint}) must begin with http:// or https://")
    return _client(endpoint)


@functools.cache  # making one takes longer than a request
def _client(endpoint: str) -> Any:  # noqa: ARG001 - the cache's key; boto3 reads it from the environment
    retries = {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS}
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=CONNECT_TIMEOUT_S))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Create an object with `If-None-Match: *`; return whether this call created it."""
    bucket, key = split(uri)
    for attempts_left in reversed(range(MAX_PUT_ATTEMPTS)):
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except boto.ClientError as error:
            metadata = error.response["ResponseMetadata"]
            if metadata["HTTPStatusCode"] == HTTP_PRECONDITION_FAILED:
                # Was it an earlier attempt of this very request, whose response was lost?
                return metadata["RetryAttempts"] > 0 and read(uri) == data
            # A conflict is another writer's attempt, which may yet fail.
            if metadata["HTTPStatusCode"] != HTTP_CONFLICT or not attempts_left:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter only
        else:
            return True
    raise AssertionError("the last attempt returns or raises")


def read(uri: str) -> bytes:
    """Return the content of an object."""
    bucket, key = split(uri)
    return bytes(client().get_object(Bucket=bucket, Key=key)["Body"].read())


def upload(uri: str, file: BinaryIO, content_type: str) -> None:
    """Make an object of a file's content from its position on. Nothing is published unless all of it arrives."""
    bucket, key = split(uri)
    client().upload_fileobj(file, bucket, key, ExtraArgs={"ContentType": content_type})


def has_unusual_key(uri: str) -> bool:
    """Return whether a key has empty or dotted parts, which pyarrow's paths cannot name."""
    return any(part in ("", ".", "..") for part in split(uri)[1].split("/"))


class S3Object(io.RawIOBase):
    """An object read by ranges, whatever its key is. Raises `FileNotFoundError` if it does not exist."""

    def __init__(self, uri: str) -> None:
        self._bucket, self._key = split(uri)
        self._size = int(_head(uri)["ContentLength"])
        self._position = 0

    def size(self) -> int:
        """Return the object's size in bytes."""
        return self._size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set and return the position."""
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes from the position on, or those that are left, in one request."""
        end = self._size if size < 0 else min(self._position + size, self._size)
        if self._position >= end:
            return b""
        byte_range = f"bytes={self._position}-{end - 1}"
        body = client().get_object(Bucket=self._bucket, Key=self._key, Range=byte_range)["Body"].read()
        self._position += len(body)
        return bytes(body)


def etag(uri: str) -> str:
    """Return an object's ETag. Raises `FileNotFoundError`."""
    return str(_head(uri)["ETag"]).strip('"')


def _head(uri: str) -> Any:
    bucket, key = split(uri)
    try:
        return client().head_object(Bucket=bucket, Key=key)
    except boto.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTP_NOT_FOUND:
            raise FileNotFoundError(f"no file at {uri}") from None
        raise


def list_objects(prefix: str) -> Iterator[tuple[str, int, str]]:
    """Yield (URI, size in bytes, ETag) of every object below a prefix, in order of key, page by page."""
    bucket, key = split(prefix)
    with translate_errors(prefix):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", ()):
                if key in ("", item["Key"]) or item["Key"].startswith(key + "/"):
                    yield f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"')


def error_code(location: str) -> str:
    """Return the store's error code for a request whose response has a body; empty if it succeeds."""
    try:
        client().list_objects_v2(Bucket=split(location)[0], MaxKeys=1)
    except boto.ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an s3:// location."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _disable_trailing_checksums() -> None:
    """Newer SDKs add trailing checksums that many S3-compatible stores refuse (HTTP 411). The environment overrides this."""
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


def presigned_url(uri: str, expires_s: int) -> str:
    """Return a URL that anybody may read an object with for a while; asks the store for nothing."""
    bucket, key = split(uri)
    return str(client().generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=expires_s))
