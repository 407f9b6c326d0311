"""Rows of tables for people: the events, what each person does, and what has no labels. Names are as they are; see `cells`."""

from collections.abc import Iterator

import numpy as np

from microaction.export.labels import Event, VideoLabels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video.windows import MICROSECONDS, Span, merge_spans, microseconds

Cell = str | int | float | None

DECIMALS = 6  # of computed seconds and rates; times are whole microseconds
SECONDS_PER_MINUTE = 60

EVENT_COLUMNS = (
    "video",
    "person",
    "name",
    "body_part",
    "action",
    "action_id",
    "start_s",
    "end_s",
    "duration_s",
    "probability",
    "model",
)
COUNT, RATE, SECONDS = "count", "per minute", "seconds"  # of an action
SUMMARY_COLUMNS = (
    *("video", "person", "name", "covered_s", "num_events", "events_per_minute"),
    *(f"{action}: {what}" for action in ACTIONS for what in (COUNT, RATE, SECONDS)),
)
FAILURE_COLUMNS = ("video", "person", "start_s", "end_s", "stage", "error", "reason", "attempts")


def event_rows(video: VideoLabels) -> Iterator[tuple[Cell, ...]]:
    """Yield the cells of `EVENT_COLUMNS` of every event. Probabilities have as many digits as tell them from their neighbors."""
    names = {person: video.person_name(person) for person in video.persons}
    model = video.facts["model"]
    # The shortest decimals that are these float32; a float64 of one would show digits that nobody measured.
    probabilities = np.array([event.probability for event in video.events], np.float32).astype(str).tolist()
    for event, probability in zip(video.events, probabilities, strict=True):
        yield (
            video.name,
            event.person,
            names[event.person],
            BODY_PARTS[BODY_PART_OF[event.action_id]],
            ACTIONS[event.action_id],
            event.action_id,
            event.start_s,
            event.end_s,
            round(event.end_s - event.start_s, DECIMALS),
            float(probability),
            model,
        )


def summary_rows(video: VideoLabels) -> Iterator[tuple[Cell, ...]]:
    """Yield the cells of `SUMMARY_COLUMNS` of every person, those without events too.

    Rates are per minute of the time that labels cover, and None where they cover nothing. Where events of an action overlap,
    their time counts once.
    """
    covered = {row["person"]: row["covered_s"] for row in video.people}
    by_person: dict[int, dict[int, list[Event]]] = {person: {} for person in video.persons}
    for event in video.events:
        by_person[event.person].setdefault(event.action_id, []).append(event)
    for person, by_action in by_person.items():
        covered_s = covered.get(person, video.facts["covered_s"])
        num_events = sum(map(len, by_action.values()))
        cells: list[Cell] = [video.name, person, video.person_name(person), covered_s]
        cells += [num_events, _per_minute(num_events, covered_s)]
        for action_id in range(len(ACTIONS)):
            events = by_action.get(action_id, ())
            spans = merge_spans(Span(microseconds(event.start_s), microseconds(event.end_s)) for event in events)
            cells += [
                len(events),
                _per_minute(len(events), covered_s),
                sum(span.end_us - span.start_us for span in spans) / MICROSECONDS,
            ]
        yield tuple(cells)


def failure_rows(video: VideoLabels) -> Iterator[tuple[Cell, ...]]:
    """Yield the cells of `FAILURE_COLUMNS` of every span without labels; `person` is None where it is not about one."""
    for row in video.failures:
        yield video.name, *(row[column] for column in FAILURE_COLUMNS[1:])


def _per_minute(count: int, covered_s: float) -> float | None:
    return round(count * SECONDS_PER_MINUTE / covered_s, DECIMALS) if covered_s else None
