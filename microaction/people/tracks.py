"""Tracks: who is who in consecutive looks of a shot, where people keep their place.

Boxes of consecutive looks are assigned to each other by their IoU and by the colors of the torso. What the detector finds of one
person twice, or now whole and now in part, is one track.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product

import numpy as np

from microaction.people.detector import Box
from microaction.people.looks import (
    MAX_DIFFERENCE,
    MAX_GAP_US,
    MIN_IOU,
    Look,
    SeenPerson,
    hellinger_distance,
    iou,
    is_part,
)

DOUBLE_IOU = 0.5  # of two tracks of one person
SIMILAR_COLORS = 0.3  # difference of torsos that may be one person's
NUM_RECENT = 5  # looks that a torso's colors are the median of


@dataclass
class Track:
    """Looks (by number) in which somebody was followed without a break, within one shot."""

    shot: int
    looks: list[int] = field(default_factory=list)
    seen: list[SeenPerson] = field(default_factory=list)

    def num_looks_in(self, first: int, last: int) -> int:
        """Return how many of its looks are from `first` to `last`."""
        return bisect_right(self.looks, last) - bisect_left(self.looks, first)

    @property
    def recent_colors(self) -> np.ndarray:
        """Of its last looks."""
        return _median_colors(self.seen[-NUM_RECENT:])

    @cached_property
    def colors(self) -> np.ndarray:
        """Of all its looks: used when it is complete."""
        return _median_colors(self.seen)

    @cached_property
    def box(self) -> Box:
        """Of all its looks: used when it is complete."""
        return median_box(self.seen)


def find_tracks(looks: Sequence[Look], shot_of_look: Sequence[int]) -> list[Track]:
    """Return the tracks of all shots, by their first look; `shot_of_look` is the number of each look's shot."""
    return _merge_alternating(_without_doubles(_follow(looks, shot_of_look)))


def _follow(looks: Sequence[Look], shot_of_look: Sequence[int]) -> list[Track]:
    tracks: list[Track] = []
    for number, look in enumerate(looks):
        live = [
            track
            for track in tracks
            if track.shot == shot_of_look[number] and look.time_us - looks[track.looks[-1]].time_us <= MAX_GAP_US
        ]
        followed = _assignment(live, look.people)
        for place, person in enumerate(look.people):
            track = followed.get(place)
            if track is None:
                track = Track(shot_of_look[number])
                tracks.append(track)
            track.looks.append(number)
            track.seen.append(person)
    return tracks


def _assignment(live: list[Track], people: Sequence[SeenPerson]) -> dict[int, Track]:
    """Return the track that each person of a look continues."""
    if not live or not people:
        return {}
    from scipy.optimize import linear_sum_assignment  # half a second to import, in every process that decodes

    overlaps = np.array([[iou(track.seen[-1].box, person.box) for person in people] for track in live])
    differences = np.array(
        [[hellinger_distance(track.recent_colors, person.colors) for person in people] for track in live]
    )
    rows, columns = linear_sum_assignment(1 - overlaps + differences)
    return {
        int(column): live[row]
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] > MIN_IOU and differences[row, column] < MAX_DIFFERENCE
    }


def _without_doubles(tracks: list[Track]) -> list[Track]:
    """Return the tracks without those of people whom the detector finds twice now and then: most looks meanwhile have one."""
    doubles = set()
    for (number, track), other in product(enumerate(tracks), tracks):
        mine, theirs = _num_meanwhile(track, other)
        if mine and 2 * mine <= theirs and len(track.looks) <= len(other.looks):
            doubles.add(number)
    return [track for number, track in enumerate(tracks) if number not in doubles]


def _merge_alternating(tracks: list[Track]) -> list[Track]:
    """Return the tracks with those of one person merged whom the detector finds whole in one look and in part in the next."""
    merged: list[Track] = []
    for track in tracks:
        whole = track
        while (part := next((other for other in merged if _alternate(other, whole)), None)) is not None:
            merged = [other for other in merged if other is not part]
            whole = _union(part, whole)
        merged.append(whole)
    return sorted(merged, key=lambda track: track.looks[0])


def _alternate(one: Track, other: Track) -> bool:
    """Return whether two tracks are one person's. Two people differ sideways, or in colors, or are seen in two looks in a row:
    consecutive looks detect people in two ways (`MoveNet`), and one person is found twice in one of them at most."""
    if min(_num_meanwhile(one, other)) == 0 or not is_part(one.box, other.box):
        return False
    common = sorted(set(one.looks).intersection(other.looks))
    is_seen_twice_in_a_row = any(later == look + 1 for look, later in pairwise(common))
    return not is_seen_twice_in_a_row and hellinger_distance(one.colors, other.colors) < SIMILAR_COLORS


def _num_meanwhile(one: Track, other: Track) -> tuple[int, int]:
    """Return how many looks each of two tracks has while both last; none if they are of other shots or places."""
    if one is other or one.shot != other.shot or iou(one.box, other.box) <= DOUBLE_IOU:
        return 0, 0
    while_both = max(one.looks[0], other.looks[0]), min(one.looks[-1], other.looks[-1])
    return one.num_looks_in(*while_both), other.num_looks_in(*while_both)


def _union(one: Track, other: Track) -> Track:
    """Return the track of all looks of two; where both have one, the likelier person of it."""
    seen = dict(zip(one.looks, one.seen, strict=True))
    for look, person in zip(other.looks, other.seen, strict=True):
        if look not in seen or seen[look].score < person.score:
            seen[look] = person
    looks = sorted(seen)
    return Track(one.shot, looks, [seen[look] for look in looks])


def median_box(seen: Sequence[SeenPerson]) -> Box:
    """Return the median of each side of the boxes."""
    left, top, right, bottom = np.median([person.box for person in seen], axis=0).tolist()
    return left, top, right, bottom


def _median_colors(seen: Sequence[SeenPerson]) -> np.ndarray:
    colors = np.median([person.colors for person in seen], axis=0) + 1e-9
    normalized: np.ndarray = colors / colors.sum()
    return normalized
