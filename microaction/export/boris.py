"""A project for BORIS, and its tables of events.

`project.boris` (JSON, format 7.0) has the 52 actions as state events, by body part, the people as subjects, and each video as an
observation whose events are pairs of a start and a stop; the score is the start's comment. `tabular/` has for each video the file
that BORIS's "Export tabular events" makes of it. Videos that could not be opened are in neither.

BORIS tells starts from stops by counting, for each subject and behavior: the first is a start, the second a stop. So events of
one action and person that overlap are one event in it, with the higher score; those that only touch remain two.
"""

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

from microaction import storage
from microaction.export.boris_format import (
    Mark,
    Observation,
    label_text,
    observation_json,
    project_head,
    tabular_events,
)
from microaction.export.display import (
    MILLISECONDS,
    distinct,
    person_names,
    published_at,
    score_text,
    short_digest,
    span_ms,
)
from microaction.export.exporter import Exporter, Written
from microaction.export.file_names import file_names, path_between, video_names
from microaction.export.labels import Labels, VideoLabels
from microaction.taxonomy import ACTIONS

PROJECT = "project.boris"
TABULAR_FOLDER, TABULAR_SUFFIX = "tabular", ".tsv"


class State(NamedTuple):
    """An action of a person between two times."""

    start_ms: int
    end_ms: int
    subject: str
    action_id: int
    probability: float


def write_boris(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write the project and the tables of all videos that could be opened."""
    dest = storage.absolute(dest)
    names = video_names(labels)
    path_of, observation_names = file_names(names, TABULAR_SUFFIX), distinct(names, _observation_name)
    subjects: dict[str, None] = {}
    project, num_videos, num_events = storage.join(dest, PROJECT), 0, 0
    with storage.open_output(project) as file:
        head = json.dumps(project_head(labels), indent=1).removesuffix("\n}")
        file.write(f'{head},\n "observations": {{'.encode())
        for video in videos:
            if video.facts["duration_s"] is None:
                continue
            observation = _observation(labels, video, observation_names[video.name], dest)
            subjects |= dict.fromkeys(_subjects(video).values())
            separator = ",\n" if num_videos else "\n"
            file.write(
                f"{separator}{json.dumps(observation.name)}: {json.dumps(observation_json(observation))}".encode()
            )
            table = storage.join(dest, TABULAR_FOLDER, path_of[video.name])
            storage.write_bytes(table, tabular_events(observation).encode())
            num_videos += 1
            num_events += len(observation.marks) // 2
        configured = {str(i): {"key": "", "name": name, "description": ""} for i, name in enumerate(subjects)}
        file.write(f'\n}},\n "subjects_conf": {json.dumps(configured)}\n}}\n'.encode())
    return Written((project, storage.join(dest, TABULAR_FOLDER)), num_videos, num_events)


def states_of(video: VideoLabels) -> list[State]:
    """Return the events of a video, by start: those of one person and action that overlap are one, with the higher score."""
    subjects = _subjects(video)
    states: list[State] = []
    last_of: dict[tuple[str, int], int] = {}
    for (start_ms, end_ms), person, action_id, probability in sorted(
        (span_ms(event), event.person, event.action_id, event.probability) for event in video.events
    ):
        key = (subjects[person], action_id)
        last = states[last_of[key]] if key in last_of else None
        if last is not None and start_ms < last.end_ms:
            states[last_of[key]] = last._replace(
                end_ms=max(last.end_ms, end_ms), probability=max(last.probability, probability)
            )
        else:
            last_of[key] = len(states)
            states.append(State(start_ms, end_ms, *key, probability))
    return states


def _marks(states: Iterable[State]) -> list[Mark]:
    marks = []
    for start_ms, end_ms, subject, action_id, probability in states:
        marks.append(Mark(start_ms, subject, ACTIONS[action_id], True, f"score {score_text(probability)}"))
        marks.append(Mark(end_ms, subject, ACTIONS[action_id], False, ""))
    return sorted(marks)


def _observation(labels: Labels, video: VideoLabels, name: str, dest: str) -> Observation:
    marks = _marks(states_of(video))
    # BORIS leaves out what is after the end of the file, and compares floating-point with decimal numbers.
    last_s = math.nextafter(marks[-1].time_ms / MILLISECONDS, math.inf) if marks else 0.0
    return Observation(
        name,
        path_between(dest, video.uri) or video.uri,
        f"{published_at(labels):%Y-%m-%dT%H:%M:%S}",
        f"Labeled by microaction with the model {label_text(str(video.facts['model']))}",
        max(round(video.facts["duration_s"], 3), last_s),
        video.facts["fps"] or 0.0,
        marks,
    )


def _subjects(video: VideoLabels) -> dict[int, str]:
    names = person_names(video)
    return distinct(names, lambda person, attempt: label_text(names[person]) + f" (person {person})" * attempt)


def _observation_name(name: str, attempt: int) -> str:
    return label_text(name) + (f" ({short_digest(f'{name}/{attempt}')})" if attempt else "")


EXPORTER = Exporter(title="BORIS, a project and tables of events", write=write_boris)
