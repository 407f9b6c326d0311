"""Labels for FiftyOne: a dataset of the type `FiftyOneTemporalDetectionDataset`, which `Dataset.from_dir` loads.

`labels.json` has the temporal detections of every video, and `data.json` says where the videos are: `data_path="data.json"` of
`from_dir`, which does not find it by itself. Source of the format: FiftyOne's documentation of that type, and the importer of
FiftyOne 1.22.
"""

import json
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from microaction import storage
from microaction.export.exporter import Exporter, Written
from microaction.export.labels import Labels, VideoLabels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

LABELS_FILE, DATA_FILE = "labels.json", "data.json"


def write_fiftyone(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write labels.json into a folder, and data.json if the videos are local files: FiftyOne reads no others.

    Videos that could not be opened are left out: FiftyOne needs their length.
    """
    labels_location, data_location = storage.join(dest, LABELS_FILE), storage.join(dest, DATA_FILE)
    is_local = not storage.is_remote(labels.archive)
    num_videos = num_events = 0
    taken: set[str] = set()
    with ExitStack() as stack:
        start = f'{{"classes": {json.dumps(ACTIONS)}, "labels": {{'
        add_labels = stack.enter_context(_open_object(labels_location, start, "}}\n"))
        add_location = stack.enter_context(_open_object(data_location, "{", "}\n")) if is_local else None
        for video in videos:
            if video.facts["duration_s"] is None:
                continue
            identifier = _identifier(video.name, taken)
            taken.add(identifier)
            add_labels(identifier, [*_detections(video)])
            if add_location is not None:
                # The importer takes the suffix off, even of a name that has none but a dot.
                add_location(identifier + posixpath.splitext(video.name)[1], video.uri)
            num_videos += 1
            num_events += len(video.events)
    locations = (labels_location, data_location) if is_local else (labels_location,)
    return Written(locations, num_videos, num_events)


def _detections(video: VideoLabels) -> Iterator[dict[str, Any]]:
    names = {person: video.person_name(person) for person in video.persons}
    for event in video.events:
        yield {
            "label": event.action_id,
            "timestamps": [event.start_s, event.end_s],
            "confidence": event.probability,
            "attributes": {
                "person": event.person,
                "person_name": names[event.person],
                "body_part": BODY_PARTS[BODY_PART_OF[event.action_id]],
                "peak_probability": event.peak_probability,
            },
        }


def _identifier(name: str, taken: set[str]) -> str:
    """Return what identifies a video: its path in the archive without suffix, as FiftyOne makes it of a folder of videos.

    The whole path where an earlier video has the same but for the suffix, and a number after it if that is taken too.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]  # the importer normalizes paths
    path = "/".join(parts)
    candidates = [posixpath.splitext(path)[0], path]
    number = 2
    while candidates[0] in taken:
        candidates = candidates[1:] or [f"{path} ({number})"]
        number += 1
    return candidates[0]


@contextmanager
def _open_object(location: str, start: str, end: str) -> Iterator[Callable[[str, Any], None]]:
    """Write a JSON object, key by key, between a start and an end."""
    with storage.open_output(location) as file:
        separator = start

        def add(key: str, value: object) -> None:
            nonlocal separator
            file.write(f"{separator}\n{json.dumps(key)}: {json.dumps(value, allow_nan=False)}".encode())
            separator = ","

        yield add
        file.write(((separator if separator == start else "") + "\n" + end).encode())


EXPORTER = Exporter("FiftyOne temporal detections", write_fiftyone)
