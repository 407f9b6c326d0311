"""Exporting labels, from settings to files. Knows no Ray."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from microaction import storage
from microaction.export.csv_tables import COMMA, csv_exporter
from microaction.export.exporter import Exporter, Written
from microaction.export.exporters import EXPORTERS
from microaction.export.labels import Labels, LabelsError, Selection, VideoLabels, read_labels
from microaction.export.settings import ExportSettings

MAX_HINTS = 5  # people that the message about an unknown one names

OnVideo = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportSummary:
    """What was exported. `num_left_out` counts wanted videos that the format cannot hold, since their length is unknown, or for
    MMA-52 their frame rate; `num_failures` the spans of the wanted videos that have no labels."""

    title: str
    written: Written
    num_left_out: int
    num_failures: int


def run_export(settings: ExportSettings, on_video: OnVideo = lambda done, total: None) -> ExportSummary:
    """Write the wanted labels in a format, one video after the other.

    `on_video` is called with how many videos are done, and how many there are. Raises `LabelsError` for a folder without labels,
    and for a video or person that is not in them; `StorageError` if the folder cannot be written.
    """
    labels = read_labels(settings.out)
    selection = Selection(settings.video, settings.person, settings.min_score)
    num_wanted = len(_wanted(labels, selection))
    _check_persons(labels, selection)
    storage.check_writable(storage.join(settings.dest, settings.format))
    counted = _Counted(num_wanted, on_video)
    exporter = exporter_of(settings)
    written = exporter.write(labels, counted.each(labels.each_video(selection)), settings.dest)
    return ExportSummary(exporter.title, written, num_wanted - written.num_videos, counted.num_failures)


def exporter_of(settings: ExportSettings) -> Exporter:
    """Return what writes the format that the settings name."""
    return csv_exporter(COMMA) if settings.decimal == "comma" else EXPORTERS[settings.format]


class _Counted:
    """Counts what passes."""

    def __init__(self, num_videos: int, on_video: OnVideo) -> None:
        self._num_videos, self._on_video = num_videos, on_video
        self.num_failures = 0

    def each(self, videos: Iterable[VideoLabels]) -> Iterator[VideoLabels]:
        for done, video in enumerate(videos):
            self._on_video(done, self._num_videos)
            self.num_failures += len(video.failures)
            yield video
        self._on_video(self._num_videos, self._num_videos)


def _wanted(labels: Labels, selection: Selection) -> list[str]:
    """Return the locations of the wanted videos. Raises `LabelsError` for a name or pattern that fits none."""
    uris: list[str] = labels.arrow("videos", columns=["video"])["video"].to_pylist()
    for name in selection.videos:
        if not any(replace(selection, videos=(name,)).has_video(labels, uri) for uri in uris):
            labels.video(name)  # raises, with names that are close
    return [uri for uri in uris if selection.has_video(labels, uri)]


def _check_persons(labels: Labels, selection: Selection) -> None:
    """Raise `LabelsError` for a person who is in none of the wanted videos."""
    if not selection.persons:
        return
    missing, known = set(selection.persons), set()
    table = labels.arrow("people", columns=["video", "person", "name"])
    for row in table.to_pylist():
        if selection.has_video(labels, row["video"]):
            video = VideoLabels(row["video"], labels.name_of(row["video"]), {}, (row,), (), (), "")
            missing -= {name for name in missing if Selection(persons=(name,)).of(video).people}
            known.add(video.person_name(row["person"]))
    if missing:
        hint = ", ".join(map(repr, sorted(known)[:MAX_HINTS])) + (", …" if len(known) > MAX_HINTS else "")
        where = "the wanted videos" if selection.videos else "the labels"
        raise LabelsError(
            f"no person {min(missing)!r} in {where} of {labels.out}: "
            + (f"there are {hint}; a number counts in every video" if known else "there is nobody in them")
        )
