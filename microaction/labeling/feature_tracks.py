"""Steps of a person that a detector has seen one after the other. Knows no torch."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from microaction.video.windows import STEP_US, Span


class Track(NamedTuple):
    """Steps one after the other: fields of `schema.TRACKS`."""

    person: int
    origin_us: int
    first_step: int
    num_steps: int
    end_us: int

    def span(self, shift_us: int) -> Span:
        """Return the span of the steps, `shift_us` later."""
        return Span(shift_us + self.origin_us + self.first_step * STEP_US, shift_us + self.end_us)

    def is_continued_by(self, other: "Track") -> bool:
        """Return whether another track begins where this one ends, in the same span of the same person."""
        own = (self.person, self.origin_us, self.first_step + self.num_steps)
        return own == (other.person, other.origin_us, other.first_step)


def joined_tracks(chunks: pa.Table) -> list[tuple[Track, np.ndarray]]:
    """Return the tracks of a video's committed chunks and their features [T, C] (float16), by person and time.

    What follows each other without a gap in one span of a person is one track, however it was cut.
    """
    parts: list[tuple[Track, np.ndarray]] = []
    for row in chunks.select(["tracks", "features"]).to_pylist():
        tracks = [Track(**track) for track in row["tracks"] or ()]
        if not tracks:
            continue
        lengths = [track.num_steps for track in tracks]
        features = np.frombuffer(row["features"], np.float16).reshape(sum(lengths), -1)
        parts += zip(tracks, np.split(features, np.cumsum(lengths)[:-1]), strict=True)
    parts.sort(key=lambda part: part[0][:3])
    joined: list[tuple[Track, list[np.ndarray]]] = []
    for track, features in parts:
        if joined and joined[-1][0].is_continued_by(track):
            before, arrays = joined[-1]
            longer = before._replace(num_steps=before.num_steps + track.num_steps, end_us=track.end_us)
            joined[-1] = longer, [*arrays, features]
        else:
            joined.append((track, [features]))
    return [(track, np.concatenate(arrays)) for track, arrays in joined]
