"""A remote file, read in few and large requests, and not beyond what is needed."""

import io
import os
from collections import OrderedDict
from typing import BinaryIO

from microaction import storage

FIRST_REQUEST_BYTES = 256 << 10  # where nothing is known: the head of a file, or of its index
MAX_REQUEST_BYTES = 4 << 20
CACHED_REQUESTS = 4  # sound and picture, or index and data, lie apart and are read in turns


class RangedReader(io.RawIOBase):
    """Reads ahead as long as reading is sequential: each request is twice the last one's size.

    The last 4 MiB, where indexes are, come in one. Within `needed`, a span of bytes that is sure to be wanted, requests are
    large at once and end with it. `num_requests` and `num_bytes` count what was asked of the file below.
    """

    def __init__(self, file: BinaryIO, num_bytes_in_all: int, name: str = "") -> None:
        self._file, self._size, self.name = file, num_bytes_in_all, name
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._sequel_at, self._last_request_bytes = -1, 0
        self.needed = range(0)
        self.num_requests = self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(origin + offset, 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, fewer at the end of what one request brought; all that is left with a negative size."""
        if size < 0:
            return b"".join(iter(lambda: self.read(MAX_REQUEST_BYTES), b""))
        if size == 0 or self._position >= self._size:
            return b""
        start, block = self._cached() or self._fetch()
        data = block[self._position - start :][:size]
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
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
        if start in self.needed:
            length = min(MAX_REQUEST_BYTES, self.needed.stop - start)
        elif start == self._sequel_at:
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
        # After what was needed there is nothing that is known again.
        self._last_request_bytes = FIRST_REQUEST_BYTES // 2 if start in self.needed else length
        self._sequel_at = start + len(block)
        self._blocks[start] = block
        while len(self._blocks) > CACHED_REQUESTS:
            self._blocks.popitem(last=False)
        return start, block


class CountedReader(io.RawIOBase):
    """A file that counts the bytes that are read of it. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.num_bytes += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
