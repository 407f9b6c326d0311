"""BORIS's project format 7.0 and its table of events: observations as JSON and as tab-separated values.

The names of fields and columns are those that BORIS 8.27 and 10.0 read and write.
"""

import csv
import io
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from microaction.export.cells import APOSTROPHE, FORMULA_MARKS, plain_text
from microaction.export.display import MILLISECONDS, published_at
from microaction.export.labels import Labels
from microaction.pages import COLORS
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

FORMAT = "7.0"  # of BORIS 7 to 10
NUM_PLAYERS = 8
NOT_AVAILABLE = "NA"
TABULAR_COLUMNS = (
    "Observation id",
    "Observation date",
    "Description",
    "Observation duration",
    "Observation type",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "FPS",
    "Subject",
    "Behavior",
    "Behavioral category",
    "Behavior type",
    "Time",
    "Media file name",
    "Image index",
    "Image file path",
    "Comment",
)


class Mark(NamedTuple):
    """The start or stop of a state, in BORIS's order; of those at one time a stop comes before the start of the next."""

    time_ms: int
    subject: str
    action: str
    is_start: bool
    comment: str


@dataclass(frozen=True)
class Observation:
    """A video as BORIS sees it."""

    name: str
    media: str
    date: str
    description: str
    length_s: float
    fps: float
    marks: Sequence[Mark]


def project_head(labels: Labels) -> Mapping[str, Any]:
    """Return the project without observations and subjects; each action has a letter as its key."""
    return {
        "time_format": "hh:mm:ss",
        "project_date": f"{published_at(labels):%Y-%m-%dT%H:%M:%S}",
        "project_name": label_text(f"Micro-actions in {labels.archive}"),
        "project_description": label_text(f"Labels of {labels.out}, version {labels.totals['version']}"),
        "project_format_version": FORMAT,
        "behaviors_conf": {
            str(action_id): {
                "type": "State event",
                "key": string.ascii_letters[action_id],
                "code": action,
                "description": f"MA-52 label {action_id}",
                "color": COLORS[BODY_PART_OF[action_id]][0],
                "category": BODY_PARTS[BODY_PART_OF[action_id]],
                "modifiers": {},
                "excluded": "",
                "coding map": "",
            }
            for action_id, action in enumerate(ACTIONS)
        },
        "behavioral_categories": list(BODY_PARTS),
        "behavioral_categories_config": {
            str(body_part): {"name": name, "color": COLORS[body_part][0]} for body_part, name in enumerate(BODY_PARTS)
        },
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }


def observation_json(observation: Observation) -> Mapping[str, Any]:
    """Return an observation as it is in a project."""
    media = observation.media
    return {
        "file": {str(player): [media] if player == 1 else [] for player in range(1, NUM_PLAYERS + 1)},
        "type": "MEDIA",
        "date": observation.date,
        "description": observation.description,
        "time offset": 0.0,
        "events": [
            [mark.time_ms / MILLISECONDS, mark.subject, mark.action, "", mark.comment, NOT_AVAILABLE]
            for mark in observation.marks
        ],
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {media: observation.length_s},
            "fps": {media: observation.fps},
            "hasVideo": {media: True},
            "hasAudio": {media: True},  # nobody looked; BORIS refuses spectrograms where it is false
            "offset": {"1": 0.0},
            "display": {media: "Nothing"},
        },
    }


def tabular_events(observation: Observation) -> str:
    """Return the events as a table of tab-separated values: a row for each start and stop."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\r\n")
    writer.writerow(TABULAR_COLUMNS)
    media, length = plain_text(observation.media), f"{observation.length_s:.3f}"
    for mark in observation.marks:
        writer.writerow(
            (
                observation.name,
                observation.date.replace("T", " "),
                observation.description,
                length,
                "Media file(s)",
                f"player #1:{media}",
                0.0,
                length,
                f"{observation.fps:.3f}",
                mark.subject,
                mark.action,
                BODY_PARTS[BODY_PART_OF[ACTIONS.index(mark.action)]],
                "START" if mark.is_start else "STOP",
                f"{mark.time_ms / MILLISECONDS:.3f}",
                media,
                NOT_AVAILABLE,
                NOT_AVAILABLE,
                mark.comment,
            )
        )
    return text.getvalue()


def label_text(text: str) -> str:
    """Return a text as BORIS may show and export it: it takes markup for markup, has `|` between subjects, and writes tables
    for spreadsheets."""
    plain = plain_text(text).translate(str.maketrans("<>|", "‹›¦")).strip()
    return APOSTROPHE + plain if plain.startswith(tuple(FORMULA_MARKS)) else plain
