"""Looks and people as they are committed: bit for bit what was seen."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from microaction.labeling.looks import look_row, looks_of
from microaction.labeling.people import people_key, people_of_looks
from microaction.people import Look, SeenPerson
from microaction.preprocessing import PersonScale
from microaction.schema import COMMITTED_LOOKS, VIDEO_PEOPLE, parquet_bytes

S = 1_000_000
VIDEO = {"video": "v", "version": "1", "duration_s": 20.0, "video_start_s": None}


def seen(left: float, rng: np.random.Generator) -> SeenPerson:
    keypoints_K3 = rng.uniform(0, 1, (17, 3)).astype(np.float32) * np.array([80, 150, 1], np.float32)
    keypoints_K3[:, 0] += np.float32(left)
    colors = rng.dirichlet(np.ones(128)).astype(np.float32)
    return SeenPerson((left, 20 + rng.uniform(), left + 80.1, 190.3), keypoints_K3, float(rng.uniform(0.3, 1)), colors)


def some_looks(number: int) -> list[Look]:
    rng = np.random.default_rng(0)
    people = [(seen(30.3, rng), seen(200.7, rng)) for _ in range(number)]
    views = rng.integers(0, 256, (18, 32, 3), dtype=np.uint8)
    return [Look(2 * i * S, 320, 200, views, people[i], 7 * S if i == 4 else None) for i in range(number)]


def committed(looks: list[Look]) -> pa.Table:
    """Return looks as they come back from the ledger's file."""
    row = {"chunk_id": "c", "video": "v", "video_version": "1", "chunk_start_us": 0, "chunk_end_us": 20 * S}
    row |= {"duration_us": 20 * S, "attempts": 1, "looks": [look_row(look) for look in looks]}
    written = parquet_bytes(pa.Table.from_pylist([row], schema=COMMITTED_LOOKS))
    return pa.parquet.read_table(pa.BufferReader(written))


def test_looks_survive_the_ledger_bit_for_bit() -> None:
    looks = some_looks(6)
    found = looks_of(committed(looks).to_pylist()[0]["looks"])
    for one, other in zip(looks, found, strict=True):
        assert (one.time_us, one.width, one.height, one.cut_us) == (
            other.time_us,
            other.width,
            other.height,
            other.cut_us,
        )
        np.testing.assert_array_equal(one.thumbnail_hwC, other.thumbnail_hwC)
        for person, same in zip(one.people, other.people, strict=True):
            assert (person.box, person.score) == (same.box, same.score)
            np.testing.assert_array_equal(person.keypoints_K3, same.keypoints_K3)
            np.testing.assert_array_equal(person.colors, same.colors)


def test_people_are_a_function_of_looks_and_scale() -> None:
    parts = committed(some_looks(10)).to_pylist()
    key = people_key(VIDEO, parts, PersonScale())
    one, same = (people_of_looks(VIDEO, parts, PersonScale(), key) for _ in range(2))
    assert pa.Table.from_pylist([one], schema=VIDEO_PEOPLE).equals(pa.Table.from_pylist([same], schema=VIDEO_PEOPLE))
    other = PersonScale(height=0.8)
    assert people_key(VIDEO, parts, other) != key
    larger = people_of_looks(VIDEO, parts, other, key)["spans"]
    assert all(mine["height"] > theirs["height"] for mine, theirs in zip(one["spans"], larger, strict=True))
    assert people_key(VIDEO | {"duration_s": 21.0}, parts, PersonScale()) != key
    assert people_key(VIDEO, [parts[0] | {"error": "decode_error"}], PersonScale()) != key


def test_only_the_part_in_which_somebody_is_covered_is_left_out() -> None:
    rng = np.random.default_rng(1)
    left, right = (
        replace(seen(x, rng), colors=np.eye(128, dtype=np.float32)[number]) for number, x in enumerate((30, 55))
    )
    people = [(left, right) if 4 <= i < 8 else (left,) for i in range(10)]
    view = np.zeros((18, 32, 3), np.uint8)
    looks = [Look(2 * i * S, 320, 200, view, people[i]) for i in range(10)]
    spans = people_of_looks(VIDEO, committed(looks).to_pylist(), PersonScale(), "key")["spans"]
    found = [(span["person"], span["start_us"] // S, span["end_us"] // S, span["error"]) for span in spans]
    assert found == [(1, 0, 7, None), (1, 7, 15, "overlap"), (1, 15, 20, None), (2, 7, 15, "overlap")]


def parts_of(looks: list[Look], failed: int | None, length_s: int) -> list[dict[str, Any]]:
    """Return a video's parts of a minute, one of which could not be looked at."""
    parts = []
    for number, start_us in enumerate(range(0, length_s * S, 60 * S)):
        inside = [] if number == failed else [look for look in looks if start_us <= look.time_us < start_us + 60 * S]
        failure = (
            {"error": "decoder_timeout", "reason": "too slow"} if number == failed else {"error": None, "reason": None}
        )
        span = {"chunk_start_us": start_us, "chunk_end_us": min(start_us + 60 * S, length_s * S)}
        parts.append(span | failure | {"looks": [look_row(look) for look in inside]})
    return parts


def looks_every(times_s: Iterable[int]) -> list[Look]:
    rng = np.random.default_rng(0)
    person, view = seen(30, rng), np.zeros((18, 32, 3), np.uint8)
    return [Look(time_s * S, 320, 200, view, (person,)) for time_s in times_s]


def test_nobody_is_known_where_nobody_could_look() -> None:
    video = VIDEO | {"duration_s": 180.0}
    found = people_of_looks(video, parts_of(looks_every(range(0, 180, 2)), 1, 180), PersonScale(), "key")
    spans = [(span["person"], span["start_us"] // S, span["end_us"] // S, span["error"]) for span in found["spans"]]
    assert spans == [(1, 0, 60, None), (1, 120, 180, None)]
    problem = {"start_us": 60 * S, "end_us": 120 * S, "error": "decoder_timeout", "reason": "too slow"}
    assert found["problems"] == [problem]


def test_frames_that_cannot_be_decoded_are_not_called_empty() -> None:
    video = VIDEO | {"duration_s": 100.0}
    found = people_of_looks(video, parts_of(looks_every(range(0, 30, 2)), None, 100), PersonScale(), "key")
    (problem,) = found["problems"]
    assert (problem["start_us"], problem["end_us"], problem["error"]) == (36 * S, 100 * S, "decode_error")
    assert (
        people_of_looks(video, parts_of(looks_every(range(0, 100, 12)), None, 100), PersonScale(), "")["problems"] == []
    )
