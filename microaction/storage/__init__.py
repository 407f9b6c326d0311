"""Paths and URIs alike: every byte that the project reads or writes, except Ray's own, goes through here.

A location is a local path, `file://…`, `s3://bucket/key` or `gs://bucket/key`. Credentials come from each store's standard
chain, and `AWS_ENDPOINT_URL` names an S3-compatible store. Throttled requests and broken connections are retried with growing
waits; what stays refused is a `StorageError`.
"""

from microaction.storage.archive import ArchivedFile, ArchiveListing
from microaction.storage.errors import StorageError, StoreUnavailableError, local_error, translate_errors
from microaction.storage.files import (
    check_writable,
    delete_file,
    delete_tree,
    exists,
    open_filesystem,
    open_input,
    open_output,
    presigned_url,
    put_if_absent,
    read_bytes,
    replace_symlink,
    write_bytes,
)
from microaction.storage.listing import StoredFile, list_files, list_folders, version_of
from microaction.storage.locations import absolute, is_remote, join

__all__ = [
    "ArchiveListing",
    "ArchivedFile",
    "StorageError",
    "StoreUnavailableError",
    "StoredFile",
    "absolute",
    "check_writable",
    "delete_file",
    "delete_tree",
    "exists",
    "is_remote",
    "join",
    "list_files",
    "list_folders",
    "local_error",
    "open_filesystem",
    "open_input",
    "open_output",
    "presigned_url",
    "put_if_absent",
    "read_bytes",
    "replace_symlink",
    "translate_errors",
    "version_of",
    "write_bytes",
]
