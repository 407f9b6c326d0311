"""The look stage: who is seen in a part of a video, every few seconds. Knows no Ray, no torch.

A part is a chunk of its own kind, of 600 s: the unit of work, of retry and of commit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from microaction.errors import FailureKind, reason_of
from microaction.labeling.probe import check_version
from microaction.people import Look, MoveNet, SeenPerson, take_looks
from microaction.people.looks import THUMBNAIL
from microaction.schema import COMMITTED_LOOKS
from microaction.video import SeekPoint
from microaction.video.decoding.sources import Source
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import MICROSECONDS, Span

LOOKS_US = 600 * MICROSECONDS  # a multiple of what `take_looks` starts at: a kill repeats half a minute of work at most
LOOKS_FORMAT = "looks 2"


def looks_in(source: Source, span: Span, seek_points: Sequence[SeekPoint]) -> list[dict[str, Any]]:
    """Return the looks in a part of a video, as rows of `schema.LOOKS`."""
    return [look_row(look) for look in take_looks(source, span, _detector(), seek_points)]


@cache
def _detector() -> MoveNet:
    """Return the detector, which a process loads once."""
    return MoveNet()


@cache
def check_detector() -> None:
    """Raise `DetectorError` unless this process can look for people: reads the detector's weights once."""
    MoveNet().check()


@dataclass(frozen=True)
class Looker:
    """The look stage: turns a row of `schema.CHUNK` into one of `schema.COMMITTED_LOOKS`.

    The detector runs in a process of its own (`sandbox`): what a file does to it costs this part alone.
    """

    limits: Limits
    look: ClassVar[Callable[..., list[dict[str, Any]]]] = staticmethod(looks_in)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a part of a video; never raises for what is in the file. Raises `DetectorError` where there is no detector."""
        check_detector()
        looks: list[dict[str, Any]] = []
        failure: dict[str, str | None] = {"error": None, "reason": None}
        try:
            check_version(row["video"], row["video_version"])
            looks = sandboxed(
                row["video"],
                self.limits,
                self.look,
                row["video"],
                Span(row["chunk_start_us"], row["chunk_end_us"]),
                [SeekPoint(**point) for point in row["seek_points"] or ()],
            )
        except Exception as error:  # nothing in one file may cost another its row
            failure = {"error": str(FailureKind.of(error)), "reason": reason_of(error)}
        known = {name: value for name, value in row.items() if name in COMMITTED_LOOKS.names}
        return known | failure | {"looks": looks}


def looks_digest() -> str:
    """Return what identifies the detector and how looks are taken."""
    return f"{LOOKS_FORMAT} {MoveNet().digest}"


def look_row(look: Look) -> dict[str, Any]:
    """Return a look as a row of `schema.LOOKS`: numbers and bytes alone."""
    return {
        "time_us": look.time_us,
        "width": look.width,
        "height": look.height,
        "thumbnail": look.thumbnail_hwC.tobytes(),
        "cut_us": look.cut_us,
        "people": [
            {
                "box": list(person.box),
                "keypoints": person.keypoints_K3.ravel().tolist(),
                "score": person.score,
                "colors": person.colors.tolist(),
            }
            for person in look.people
        ],
    }


def looks_of(rows: Iterable[Mapping[str, Any]]) -> list[Look]:
    """Return the looks that rows of `schema.LOOKS` describe, bit for bit."""
    return [
        Look(
            row["time_us"],
            row["width"],
            row["height"],
            np.frombuffer(row["thumbnail"], np.uint8).reshape(*THUMBNAIL, 3),
            tuple(_seen(person) for person in row["people"]),
            row["cut_us"],
        )
        for row in rows
    ]


def _seen(row: Mapping[str, Any]) -> SeenPerson:
    left, top, right, bottom = row["box"]
    keypoints_K3 = np.array(row["keypoints"], np.float32).reshape(-1, 3)
    return SeenPerson((left, top, right, bottom), keypoints_K3, row["score"], np.array(row["colors"], np.float32))
