"""What stores answer, as one line that says what to check."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from microaction.errors import FailureKind, TransientError, UsageError
from microaction.storage.locations import is_remote

# Where pyarrow keeps a store's own error code: S3's codes that the SDK does not know, those that it knows, Google's.
_ERROR_CODE_PATTERNS = (
    re.compile(r"Unable to parse ExceptionName: (\w+)"),
    re.compile(r"AWS Error (?:\[code \d+\]|(\w+))"),
    re.compile(r"google::cloud::Status\((\w+)"),
)
_LOCAL_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_UNREACHABLE_CODES = ("networkconnection", "unavailable")


class StorageError(UsageError, OSError):
    """A store refuses a request; the message says what to check."""

    failure_kind: ClassVar[FailureKind] = FailureKind.STORAGE_ERROR


class StoreUnavailableError(TransientError, StorageError):
    """A store does not answer; the same command again may work."""


@contextmanager
def translate_errors(location: str) -> Iterator[None]:
    """Raise what stores answer as `StorageError` or `StoreUnavailableError` with one line about `location`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        local = local_error(error, location)
        if local is not None and not is_remote(location):
            raise local from error
        match = next((match for pattern in _ERROR_CODE_PATTERNS if (match := pattern.search(str(error)))), None)
        if match is None or isinstance(error, FileNotFoundError):
            raise
        code = match[1] or str(error)
        # Responses without a body do not say why.
        if code in ("UNKNOWN", "ACCESS_DENIED") and location.startswith("s3://"):
            from microaction.storage.s3 import error_code

            code = error_code(location) or code
        raise error_of(code, location) from error
    except Exception as error:
        boto = sys.modules.get("botocore.exceptions")  # not loaded: the error cannot be boto's
        if boto is None or not isinstance(error, (boto.ClientError, boto.BotoCoreError)):
            raise
        if isinstance(error, boto.ClientError):
            raise error_of(error.response["Error"]["Code"], location) from error
        if isinstance(error, boto.NoCredentialsError):
            raise error_of("NoCredentials", location) from error
        if isinstance(error, (boto.ConnectionError, boto.HTTPClientError)):
            raise error_of("NetworkConnection", location) from error
        raise StorageError(f"{location}: {error}") from error


def local_error(error: OSError, location: str) -> StorageError | None:
    """Return what a local file system's error means for a location; None for errors that are no fact about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailableError(f"no space left for {location}: free some, then run the same command again")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"{location} cannot be used: a part of its path is a file, not a folder")
    if error.errno in _LOCAL_ERRORS:
        return StorageError(f"{location} cannot be used: {os.strerror(error.errno).lower()}")
    return None


def error_of(code: str, location: str) -> StorageError:
    """Return the exception for a store's error code."""
    normalized = code.replace("_", "").lower()
    kind = StoreUnavailableError if normalized in _UNREACHABLE_CODES else StorageError
    return kind(_advice(normalized, code, location))


def s3_endpoint() -> str:
    """Return the endpoint of the S3-compatible store that replaces Amazon's; empty for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def _advice(normalized: str, code: str, location: str) -> str:
    credentials = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of this node"
    match normalized:
        case "nosuchbucket" | "404":
            bucket = location.partition("://")[2].partition("/")[0]
            return f"no bucket {bucket!r} (from {location}): create it, or fix the name"
        case "nocredentials":
            return f"no credentials for {location}: {credentials}"
        case "invalidaccesskeyid" | "signaturedoesnotmatch" | "invalidtoken" | "unauthenticated":
            return f"the credentials for {location} are wrong: {credentials}"
        case "expiredtoken" | "requestexpired" | "tokenrefreshrequired":
            return f"the credentials for {location} have expired: get new ones and run the same command again"
        case "accessdenied" | "forbidden" | "403" | "allaccessdisabled" | "permissiondenied":
            return f"no access to {location}: the credentials are wrong or lack the permission; {credentials}"
        case "networkconnection" | "unavailable":
            store = s3_endpoint() or "the store"
            return f"{store} does not answer (for {location}): check AWS_ENDPOINT_URL and the network"
    return f"{location}: the store answers {code}"
