import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.video.decoding import ranged
from microaction.video.decoding.ranged import RangedReader

CONTENT = np.random.default_rng(0).bytes(3 << 20)


class Counted(io.BytesIO):
    """An underlying file that records the (offset, size) of every request."""

    def __init__(self) -> None:
        super().__init__(CONTENT)
        self.requests: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.requests.append((self.tell() - len(data), len(data)))
        return data


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 100_000)), max_size=30))
def test_reads_return_the_files_bytes_at_any_offset(reads: list[tuple[int, int]]) -> None:
    reader = RangedReader(io.BytesIO(CONTENT), len(CONTENT))
    for start, size in reads:
        reader.seek(start)
        data = reader.read(size)
        assert data == CONTENT[start : start + len(data)]
        assert bool(data) == (size > 0 and start < len(CONTENT))
        assert reader.tell() == start + len(data)


def test_reading_everything_and_seeking_from_the_end() -> None:
    reader = RangedReader(io.BytesIO(CONTENT), len(CONTENT))
    assert reader.read() == CONTENT
    assert reader.seek(-4, io.SEEK_END) == len(CONTENT) - 4
    assert reader.read(100) == CONTENT[-4:]
    assert reader.seek(-2, io.SEEK_CUR) == len(CONTENT) - 2


def test_requests_grow_while_reading_is_sequential() -> None:
    file = Counted()
    reader = RangedReader(file, 1 << 30)  # as if the file were much longer
    while reader.tell() < 2 << 20:
        reader.read(1000)
    first = ranged.FIRST_REQUEST_BYTES
    assert file.requests == [(0, first), (first, 2 * first), (3 * first, 4 * first), (7 * first, 5 * first)]
    assert (reader.num_requests, reader.num_bytes) == (4, 12 * first)


def test_a_hinted_range_is_one_request_and_no_more() -> None:
    file = Counted()
    reader = RangedReader(file, 1 << 30)
    reader.hinted_range = range(500_000, 1_500_000)
    reader.seek(500_000)
    while reader.tell() < 1_500_000:
        reader.read(7000)
    assert file.requests == [(500_000, 1_000_000)]
    reader.read(1)
    assert file.requests[1:] == [(1_500_000, ranged.FIRST_REQUEST_BYTES)]


def test_going_back_a_little_needs_no_request() -> None:
    reader = RangedReader(io.BytesIO(CONTENT), 1 << 30)
    for offset in (0, 1 << 20, 100, (1 << 20) + 100):
        reader.seek(offset)
        reader.read(100)
    assert reader.num_requests == 2
