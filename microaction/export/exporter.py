"""What a format to export to is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from microaction.export.labels import Labels, VideoLabels


@dataclass(frozen=True)
class Written:
    """What an export wrote: the locations of its files for people to open (of many, the folder), and how much is in them."""

    locations: tuple[str, ...]
    num_videos: int
    num_events: int


@dataclass(frozen=True)
class Exporter:
    """A format.

    `write(labels, videos, dest)` writes the labels of some videos, which it may go through once and one at a time, into a folder:
    a path or URI. Existing files of the same names are replaced, each as a whole.
    """

    title: str
    write: Callable[[Labels, Iterable[VideoLabels], str], Written]
