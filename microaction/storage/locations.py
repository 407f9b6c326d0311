"""Locations: local paths, `file://…`, `s3://bucket/key` and `gs://bucket/key`."""

import os

REMOTE_SCHEMES = ("s3://", "gs://")


def is_remote(location: str) -> bool:
    """Return whether a location is in object storage."""
    return location.startswith(REMOTE_SCHEMES)


def absolute(location: str) -> str:
    """Return the location as every node may name it: URIs without a trailing slash, local paths absolute."""
    if is_remote(location):
        return location.rstrip("/")
    return os.path.abspath(os.path.expanduser(location.removeprefix("file://")))


def join(location: str, *names: str) -> str:
    """Return the location of something below a folder."""
    return "/".join([location.rstrip("/"), *names])
