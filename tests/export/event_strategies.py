"""Random events of a few people, many of which overlap, touch, or are shorter than a millisecond."""

from hypothesis import strategies as st

from microaction.export.labels import Event
from microaction.taxonomy import ACTIONS

MAX_PERSON = 3
_TIMES_S = st.one_of(
    st.floats(0, 20, allow_nan=False),
    st.integers(0, 40).map(lambda steps: steps / 2),
    st.floats(10_799, 10_801, allow_nan=False),  # three hours
)
_DURATIONS_S = st.one_of(st.floats(0, 5, allow_nan=False), st.sampled_from([0.0, 0.0004, 0.5, 1.0]))
_SCORES = st.floats(0, 1, width=32)


def _event(person: int, action_id: int, start_s: float, duration_s: float, probability: float) -> Event:
    return Event(person, action_id, start_s, start_s + duration_s, probability, probability)


EVENTS = st.builds(
    _event,
    st.integers(0, MAX_PERSON),
    st.one_of(st.integers(0, len(ACTIONS) - 1), st.sampled_from([9, 10])),
    _TIMES_S,
    _DURATIONS_S,
    _SCORES,
)
LISTS_OF_EVENTS = st.lists(EVENTS, max_size=25).map(
    lambda events: tuple(sorted(events, key=lambda event: (event.start_s, event.person, event.action_id)))
)
