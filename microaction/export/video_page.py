"""The page of a video: its labels as data for the script, and the words around it.

Times in the data are milliseconds, scores thousandths: an hour with thousands of events is a file of some hundred kilobytes.

Shapes: S steps of a person, K actions.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from microaction.export.display import MILLISECONDS
from microaction.export.labels import WHOLE_FRAME, Labels, VideoLabels
from microaction.export.media import Media
from microaction.pages import COLORS, clock, color_of, printable, render
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video.windows import microseconds

TEMPLATES = "microaction.export"
MAX_STRIP_COLUMNS = 4000  # of an action: more than any screen has
MAX_FAILURES = 5
MAX_FREQUENT = 3
SCORE_SCALE = 1000  # scores in the page's data are whole numbers up to this


def video_page(labels: Labels, video: VideoLabels, media: Media, scripts: Sequence[str]) -> bytes:
    """Return the page of a video; `scripts` are the relative locations of the scripts that it loads."""
    facts = video.facts
    return render(
        TEMPLATES,
        "video.html.j2",
        name=printable(video.name),
        location=printable(video.uri),
        length="unknown" if facts["duration_s"] is None else clock(microseconds(facts["duration_s"])),
        coverage=facts["coverage"],
        num_events=len(video.events),
        per_minute=facts["events_per_minute"],
        model=printable(labels.model),
        media=media.uri,
        media_origin=media.origin,
        no_media=media.reason,
        people=[_person_facts(video, person) for person in video.persons],
        failures=[{"when": _when(row), "reason": printable(row["reason"])} for row in video.failures[:MAX_FAILURES]],
        num_more_failures=max(len(video.failures) - MAX_FAILURES, 0),
        data=page_data(labels, video),
        scripts=scripts,
    )


def page_data(labels: Labels, video: VideoLabels) -> dict[str, Any]:
    """Return what the script of the page shows, as JSON values.

    `events` has a list per column, by start; `person` is an index into `people`. `activity` has a strip per person, action that
    occurs and span, at most `MAX_STRIP_COLUMNS` long: base64 of a byte per step, probability times 255.
    """
    index_of = {person: index for index, person in enumerate(video.persons)}
    facts = video.facts
    return {
        "duration_s": facts["duration_s"],
        "width": facts["width"],
        "height": facts["height"],
        "colors": [fill for fill, _ in COLORS],
        "actions": list(ACTIONS),
        "body_parts": list(BODY_PARTS),
        "body_part_of": list(BODY_PART_OF),
        "people": [
            {
                "name": printable(video.person_name(person)),
                "short": _short(person),
                "color": color_of(person),
                "spans": list(_crops(video, person)),
            }
            for person in video.persons
        ],
        "events": {
            "person": [index_of[event.person] for event in video.events],
            "action": [event.action_id for event in video.events],
            "start_ms": [round(event.start_s * MILLISECONDS) for event in video.events],
            "end_ms": [round(event.end_s * MILLISECONDS) for event in video.events],
            "score": [round(event.probability * SCORE_SCALE) for event in video.events],
        },
        "activity": [
            {"person": index_of[person]} | strip for person in video.persons for strip in _strips(labels, video, person)
        ],
    }


def _person_facts(video: VideoLabels, person: int) -> dict[str, Any]:
    row = next((row for row in video.people if row["person"] == person), None)
    events = [event for event in video.events if event.person == person]
    counts = np.bincount([event.action_id for event in events], minlength=len(ACTIONS))
    frequent = [index for index in np.argsort(-counts, kind="stable")[:MAX_FREQUENT].tolist() if counts[index]]
    return {
        "name": printable(video.person_name(person)),
        "short": _short(person),
        "color": color_of(person),
        "seen_s": 0.0 if row is None else row["seen_s"],
        "num_events": len(events),
        "frequent": ", ".join(f"{ACTIONS[index]} {counts[index]}" for index in frequent),
    }


def _short(person: int) -> str:
    return "–" if person == WHOLE_FRAME else str(person)


def _crops(video: VideoLabels, person: int) -> Iterator[list[float]]:
    """Yield [start_s, end_s, left, top, width, height] of each span in which a person is labeled."""
    for row in video.people:
        if row["person"] != person:
            continue
        for span in row["spans"]:
            if span["error"] is None:
                yield [span[name] for name in ("start_s", "end_s", "left", "top", "width", "height")]


def _strips(labels: Labels, video: VideoLabels, person: int) -> Iterator[dict[str, Any]]:
    occurring = sorted({event.action_id for event in video.events if event.person == person})
    if not occurring:
        return
    parts = list(labels.activity_of(video, person))
    num_steps = sum(len(activity) for _, _, activity in parts)
    pooled = -(-num_steps // MAX_STRIP_COLUMNS)
    for start_s, step_s, activity_SK in _joined(parts):
        columns_CK = max_pooled(activity_SK[:, occurring], pooled)
        for column, action_id in enumerate(occurring):
            yield {
                "action": action_id,
                "start_s": start_s,
                "step_s": step_s * pooled,
                "values": base64.b64encode(columns_CK[:, column].tobytes()).decode(),
            }


def _joined(parts: Sequence[tuple[float, float, np.ndarray]]) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield what lies behind each other without a gap as one."""
    waiting: list[tuple[float, float, np.ndarray]] = []
    end_s = None
    for start_s, step_s, activity_SK in parts:
        if waiting and (end_s is None or abs(start_s - end_s) > step_s / 2):
            yield waiting[0][0], waiting[0][1], np.concatenate([each for _, _, each in waiting])
            waiting = []
        waiting.append((start_s, step_s, activity_SK))
        end_s = start_s + step_s * len(activity_SK)
    if waiting:
        yield waiting[0][0], waiting[0][1], np.concatenate([each for _, _, each in waiting])


def max_pooled(values_SK: np.ndarray, size: int) -> np.ndarray:
    """Return the maximum of each `size` steps [ceil(S / size), K]."""
    padding = -len(values_SK) % size
    padded = np.pad(values_SK, ((0, padding), (0, 0)))
    pooled: np.ndarray = padded.reshape(-1, size, values_SK.shape[1]).max(axis=1)
    return pooled


def _when(row: Mapping[str, Any]) -> str:
    who = "" if row["person"] is None else f"person {row['person']}, "
    start = clock(microseconds(row["start_s"]))
    return f"{who}{start} to {'the end' if row['end_s'] is None else clock(microseconds(row['end_s']))}"
