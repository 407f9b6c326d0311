import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microaction.video.decoding import ranged
from microaction.video.decoding.ranged import RangedReader

CONTENT = np.random.default_rng(0).bytes(3 << 20)


class Counted(io.BytesIO):
    """A file below that tells what was asked of it."""

    def __init__(self) -> None:
        super().__init__(CONTENT)
        self.asked: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.asked.append((self.tell() - len(data), len(data)))
        return data


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 100_000)), max_size=30))
def test_bytes_are_the_files_wherever_they_are_read(places: list[tuple[int, int]]) -> None:
    reader = RangedReader(io.BytesIO(CONTENT), len(CONTENT))
    for start, size in places:
        reader.seek(start)
        data = reader.read(size)
        assert data == CONTENT[start : start + len(data)]
        assert bool(data) == (size > 0 and start < len(CONTENT))
        assert reader.tell() == start + len(data)


def test_all_of_it_and_places_from_the_end() -> None:
    reader = RangedReader(io.BytesIO(CONTENT), len(CONTENT))
    assert reader.read() == CONTENT
    assert reader.seek(-4, io.SEEK_END) == len(CONTENT) - 4
    assert reader.read(100) == CONTENT[-4:]
    assert reader.seek(-2, io.SEEK_CUR) == len(CONTENT) - 2


def test_requests_grow_as_long_as_reading_goes_on() -> None:
    file = Counted()
    reader = RangedReader(file, 1 << 30)  # of an end far away
    while reader.tell() < 2 << 20:
        reader.read(1000)
    first = ranged.FIRST_REQUEST_BYTES
    assert file.asked == [(0, first), (first, 2 * first), (3 * first, 4 * first), (7 * first, 5 * first)]
    assert (reader.num_requests, reader.num_bytes) == (4, 12 * first)


def test_what_is_needed_comes_in_one_request_and_nothing_beyond_it() -> None:
    file = Counted()
    reader = RangedReader(file, 1 << 30)
    reader.needed = range(500_000, 1_500_000)
    reader.seek(500_000)
    while reader.tell() < 1_500_000:
        reader.read(7000)
    assert file.asked == [(500_000, 1_000_000)]
    reader.read(1)
    assert file.asked[1:] == [(1_500_000, ranged.FIRST_REQUEST_BYTES)]


def test_going_back_a_little_asks_for_nothing() -> None:
    reader = RangedReader(io.BytesIO(CONTENT), 1 << 30)
    for place in (0, 1 << 20, 100, (1 << 20) + 100):
        reader.seek(place)
        reader.read(100)
    assert reader.num_requests == 2
