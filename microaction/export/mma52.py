"""Labels in the formats of MMA-52 and its challenge: the dataset's annotation file, and a submission of detections.

Both name videos, actions and times only: the events of all people of a video are together, unless they are of one person.
"""

import csv
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from microaction import storage
from microaction.evaluation.detection_submission import HEADER
from microaction.evaluation.submission import FIXED_DATE, PREDICTION_FILE, VIDEO_SUFFIX, video_id
from microaction.export.cells import FORMULA_MARKS
from microaction.export.exporter import Exporter, Written
from microaction.export.labels import Event, Labels, VideoLabels

ANNOTATIONS_FILE, SUBMISSION_FILE = "annotations.csv", "submission.zip"
COLUMNS = ("id", "video_id", "start_frame", "end_frame", "class", "total_frames", "fps")  # of the files since 2025
THIS_FOLDER = "./"


class FrameSpan(NamedTuple):
    """An event in frames, from 0; `end` is the first frame after it, or the video's last one."""

    start: int
    end: int


def write_mma52(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write annotations.csv and submission.zip into a folder, with a row per event. Videos without a frame rate or a duration
    are left out."""
    annotations, submission = storage.join(dest, ANNOTATIONS_FILE), storage.join(dest, SUBMISSION_FILE)
    num_with_id = _count_ids(labels)
    num_videos = num_events = 0
    with ExitStack() as stack:
        annotation_rows = csv.writer(stack.enter_context(_open_text(annotations)), lineterminator="\n")
        submission_rows = csv.writer(stack.enter_context(_open_prediction(submission)), lineterminator="\n")
        annotation_rows.writerow(COLUMNS)
        submission_rows.writerow(HEADER)
        for video in videos:
            fps, duration_s = video.facts["fps"], video.facts["duration_s"]
            if not fps or not duration_s:
                continue
            path = _harmless(video.name.removesuffix(VIDEO_SUFFIX))
            name = video_id(video.name)
            identifier = _harmless(name) if num_with_id[name] == 1 else path
            num_frames = max(round(duration_s * fps), 2)
            for row, event in enumerate(video.events, start=num_events):
                span = frame_span(event, fps, num_frames)
                annotation_rows.writerow([row, path, *span, event.action_id, num_frames, fps])
                submission_rows.writerow(
                    [row, identifier, event.start_s, event.end_s, event.action_id, event.probability]
                )
            num_videos += 1
            num_events += len(video.events)
    return Written((annotations, submission), num_videos, num_events)


def frame_span(event: Event, fps: float, num_frames: int) -> FrameSpan:
    """Return an event's frames: the nearest, but at least one, and none beyond the last frame, with which MMA-52's longest spans
    end too."""
    start, end = round(event.start_s * fps), round(event.end_s * fps)
    if end <= start:
        start = math.floor(event.start_s * fps)
        end = start + 1
    return FrameSpan(min(start, num_frames - 2), min(end, num_frames - 1))


def _count_ids(labels: Labels) -> Mapping[str, int]:
    """Return how many videos of the archive the challenge would call the same: it knows files' names without folders."""
    uris: list[str] = labels.arrow("videos", columns=["video"])["video"].to_pylist()
    return Counter(video_id(labels.name_of(uri)) for uri in uris)


def _harmless(path: str) -> str:
    """Return a path of the same file that no spreadsheet takes for a formula."""
    return THIS_FOLDER + path if path.lstrip().startswith(tuple(FORMULA_MARKS)) else path


@contextmanager
def _open_text(location: str) -> Iterator[io.TextIOWrapper]:
    with storage.open_output(location) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        yield text
        text.detach()  # flushes; the file stays open


@contextmanager
def _open_prediction(location: str) -> Iterator[io.TextIOWrapper]:
    """Open the one file in a submission's zip."""
    with storage.open_output(location) as file, zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo(PREDICTION_FILE, FIXED_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        stream: Any = archive.open(entry, "w", force_zip64=True)
        with stream:
            text = io.TextIOWrapper(stream, "utf-8", newline="")
            yield text
            text.detach()


EXPORTER = Exporter("MMA-52's annotations and a submission of the challenge", write_mma52)
