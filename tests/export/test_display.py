"""How exports spell times and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.export.display import distinct, person_names, span_ms
from microaction.export.labels import Event, VideoLabels


def video(*names: str | None) -> VideoLabels:
    """Return a video of people 1, 2, … with names."""
    people = tuple({"person": person, "name": name} for person, name in enumerate(names, start=1))
    return VideoLabels("/archive/one.mp4", "one.mp4", {}, people, (), (), "part")


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (1.0, 2.5, (1000, 2500)),
        (0.0004, 0.0005, (0, 1)),
        (5.0, 5.0, (5000, 5001)),
        (-0.01, 0.5, (0, 500)),
        (10_800.0004, 10_800.9996, (10_800_000, 10_801_000)),
    ],
)
def test_spans_are_whole_milliseconds_and_never_empty(start_s: float, end_s: float, expected: tuple[int, int]) -> None:
    assert span_ms(Event(1, 0, start_s, end_s, 0.5, 0.5)) == expected


def test_people_of_one_name_have_their_numbers_too() -> None:
    assert person_names(video("Ann", None, "Ben")) == {1: "Ann", 2: "person 2", 3: "Ben"}
    assert person_names(video("Ann", "Ann", "Ben")) == {1: "Ann (person 1)", 2: "Ann (person 2)", 3: "Ben"}
    assert person_names(video(" Ann\t", "Ann")) != {1: "Ann", 2: "Ann"}
    assert person_names(video("person 2", None)) == {1: "person 2 (person 1)", 2: "person 2 (person 2)"}
    assert len(set(person_names(video("Ann", "Ann", "Ann (person 1)")).values())) == 3


@given(st.lists(st.one_of(st.none(), st.text("An 1(person)\n\u202e<", max_size=20)), max_size=6))
def test_no_two_people_have_one_name(names: list[str | None]) -> None:
    found = person_names(video(*names))
    assert len(set(found.values())) == len(names)
    assert all(name and name.isprintable() and name == name.strip() for name in found.values())


def test_distinct_names_avoid_those_that_are_taken() -> None:
    assert distinct("ab", lambda item, attempt: item + "x" * attempt, taken={"a"}) == {"a": "ax", "b": "b"}
    with pytest.raises(ValueError, match="no names of their own"):
        distinct("ab", lambda item, attempt: "same")
