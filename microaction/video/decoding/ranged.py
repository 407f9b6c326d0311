"""A remote file, read with few and large requests, and little beyond what is needed."""

import io
import os
from collections import OrderedDict
from typing import BinaryIO

from microaction import storage

FIRST_REQUEST_BYTES = 256 << 10  # where nothing is known: at the beginning of a file or of its index
MAX_REQUEST_BYTES = 4 << 20
CACHED_REQUESTS = 4  # audio and video, or index and data, lie apart and are read alternately


class RangedReader(io.RawIOBase):
    """Reads ahead while reading is sequential: each request is twice the size of the last one.

    The last 4 MiB of a file, where indexes are, come in one request. Within `hinted_range`, a byte range that is
    certain to be read, requests are large from the start and end with the range. `num_requests` and `num_bytes` count
    what was requested from the underlying file.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, name: str = "") -> None:
        self._file, self._size, self.name = file, size_bytes, name
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._last_end, self._last_request_bytes = -1, 0
        self.hinted_range = range(0)
        self.num_requests = self.num_bytes = 0

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
        """Set and return the position; no request is made before something is read there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, fewer at the end of a request's block; with a negative size all that remain."""
        if size < 0:
            return b"".join(iter(lambda: self.read(MAX_REQUEST_BYTES), b""))
        if size == 0 or self._position >= self._size:
            return b""
        start, block = self._cached() or self._fetch()
        data = block[self._position - start :][:size]
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read into `buffer` and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the underlying file too."""
        self._blocks.clear()
        self._file.close()
        super().close()

    def _cached(self) -> tuple[int, bytes] | None:
        for start, block in reversed(self._blocks.items()):
            if start <= self._position < start + len(block):
                return start, block
        return None

    def _fetch(self) -> tuple[int, bytes]:
        start = self._position
        if start in self.hinted_range:
            length = min(MAX_REQUEST_BYTES, self.hinted_range.stop - start)
        elif start == self._last_end:
            length = min(MAX_REQUEST_BYTES, 2 * self._last_request_bytes)
        elif self._size - start <= MAX_REQUEST_BYTES:
            length = self._size - start  # an index at the end
        else:
            length = FIRST_REQUEST_BYTES
        length = min(length, self._size - start)
        with storage.translate_errors(self.name):
            self._file.seek(start)
            block = self._file.read(length)
        self.num_requests += 1
        self.num_bytes += len(block)
        # After the hinted range nothing is known again: requests start small.
        self._last_request_bytes = FIRST_REQUEST_BYTES // 2 if start in self.hinted_range else length
        self._last_end = start + len(block)
        self._blocks[start] = block
        while len(self._blocks) > CACHED_REQUESTS:
            self._blocks.popitem(last=False)
        return start, block


class CountedReader(io.RawIOBase):
    """A file that counts the bytes read from it in `num_bytes`. Closing it leaves the underlying file open."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        self.num_bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the underlying file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set and return the position in the underlying file."""
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes; with a negative size all that remain."""
        data = self._file.read(size)
        self.num_bytes += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read into `buffer` and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
