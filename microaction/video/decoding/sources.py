"""Sources of a video: paths, URIs, bytes and open files. Each is opened as a seekable binary file."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from microaction import storage
from microaction.errors import DecodeError
from microaction.video.decoding.ranged import CountedReader, RangedReader

Source = str | os.PathLike[str] | bytes | BinaryIO | RangedReader | CountedReader
"""A path, a URI, the content of a file, or an open, seekable binary file."""


def name_of(source: Source) -> str:
    """Return the name of the source for messages."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return "<bytes>" if isinstance(source, bytes) else str(getattr(source, "name", "<file>"))


def open_source(source: Source, uri: str) -> BinaryIO:
    """Return the source as a seekable binary file, at its beginning. Raises `DecodeError` if it does not exist."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            file = storage.open_input(os.fspath(source))
            if not storage.is_remote(os.fspath(source)):
                return file
            return cast(BinaryIO, RangedReader(file, cast(Any, file).size(), uri))
        except FileNotFoundError:
            raise DecodeError(uri, "no such file") from None
        except storage.StorageError:  # not a property of the file
            raise
        except OSError as error:
            raise DecodeError(uri, f"cannot be opened: {(error.strerror or str(error)).lower()}") from error
    source.seek(0)
    return cast(BinaryIO, source)


@contextmanager
def open_counted(source: Source) -> Iterator[RangedReader | CountedReader]:
    """Open the source as a file that counts the bytes read from it. Raises `DecodeError` if it does not exist."""
    uri = name_of(source)
    file = open_source(source, uri)
    reader = file if isinstance(file, RangedReader) else CountedReader(file, uri)
    try:
        yield reader
    finally:
        if file is not source:
            file.close()


def hint_byte_range(file: BinaryIO, byte_range: range) -> None:
    """Announce to a remote file which of its bytes will be read; a local file ignores it."""
    if isinstance(file, RangedReader):
        file.hinted_range = byte_range
