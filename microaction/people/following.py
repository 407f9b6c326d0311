"""From looks to people: shots, their tracks, and who is who across shots. A pure function of the looks.

Across shots, a person is the same where the same view shows the same seat again, or where the colors are alike; two
who are seen at once are never one. Doubt splits: a person with two numbers is merged by hand more easily than two with one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby, pairwise

import numpy as np

from microaction.people.detector import Box
from microaction.people.looks import (
    CUT,
    MAX_DIFFERENCE,
    Look,
    changed_fraction,
    hellinger_distances,
    iou,
    is_part,
)
from microaction.people.tracks import SIMILAR_COLORS, Track, find_tracks, median_box
from microaction.video.windows import MICROSECONDS, Span

SAME_SEAT_IOU = 0.5  # of boxes where the same view returns
SAME_COLORS = 0.2  # difference of torsos that are one person's wherever they are
# Or a difference below SIMILAR_COLORS, where those who are seen at once with the person differ by so much more.
MIN_MARGIN = 0.15
MIN_LOOKS = 2  # at a person: what is found only once may be nobody
MIN_HEIGHT, MIN_HEIGHT_OF_TALLEST = 0.2, 0.4  # of the frame, of the tallest person of the shot: others pass by
MIN_SEEN_US = 6 * MICROSECONDS
PLACE_BLOCK_US = 30 * MICROSECONDS
BORDER_US = MICROSECONDS  # between two looks of a shot, what changes changes at a multiple of it
SAME_PLACE_IOU = 0.6  # of a person's median boxes, below which another crop is needed


@dataclass(frozen=True)
class Tracklet:
    """A person who stays at one place in one shot; box and keypoints [17, 3] are medians of its looks."""

    shot: int
    span: Span
    box: Box
    keypoints_K3: np.ndarray
    score: float
    num_looks: int

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True)
class Person:
    """A person of a video. Numbers count from 1, by the time that people are seen."""

    number: int
    tracklets: tuple[Tracklet, ...]

    @property
    def seen_us(self) -> int:
        """How long the person is seen."""
        return _seen_us(self.tracklets)


@dataclass(frozen=True)
class VideoPeople:
    """The people of a video and its shots, which follow each other from 0 to its end.

    Those who are `too_small`, and those who are `seen_briefly`, are none of its `people`; their numbers continue.
    """

    shots: tuple[Span, ...]
    people: tuple[Person, ...]
    too_small: tuple[Person, ...] = ()
    seen_briefly: tuple[Person, ...] = ()


def find_people(looks: Sequence[Look], duration_us: int) -> VideoPeople:
    """Return the people of a whole video, from all its looks, ascending."""
    shots, shot_of_look = _shots(looks, duration_us)
    min_looks = min(MIN_LOOKS, len(looks))
    tracks = find_tracks(looks, shot_of_look)
    identities = _identities(tracks, _Views(looks, shot_of_look))
    groups = [group for group in identities if sum(len(track.looks) for track in group) >= min_looks]
    found = [tuple(_tracklets(group, looks, shots, shot_of_look)) for group in groups]
    frame_height = max((look.height for look in looks), default=0)
    tallest: dict[int, float] = {}
    for tracklet in (tracklet for tracklets in found for tracklet in tracklets):
        tallest[tracklet.shot] = max(tallest.get(tracklet.shot, 0.0), tracklet.height)
    enough_us = min(MIN_SEEN_US, duration_us // 2)
    groups_of: dict[str, list[tuple[Tracklet, ...]]] = {"people": [], "too_small": [], "seen_briefly": []}
    for tracklets in sorted(found, key=_order):
        if not any(
            tracklet.height >= max(MIN_HEIGHT * frame_height, MIN_HEIGHT_OF_TALLEST * tallest[tracklet.shot])
            for tracklet in tracklets
        ):
            groups_of["too_small"].append(tracklets)
        elif _seen_us(tracklets) < enough_us:
            groups_of["seen_briefly"].append(tracklets)
        else:
            groups_of["people"].append(tracklets)
    numbers = count(1)
    people = {
        name: tuple(Person(next(numbers), tracklets) for tracklets in its_groups)
        for name, its_groups in groups_of.items()
    }
    return VideoPeople(tuple(shots), **people)


def _shots(looks: Sequence[Look], duration_us: int) -> tuple[list[Span], list[int]]:
    """Return the shots, and the number of the shot of each look."""
    cuts_us = [look.cut_us for look in looks if look.cut_us is not None]
    shots = [Span(start, end) for start, end in pairwise([0, *cuts_us, duration_us])]
    shot_of_look, shot = [], 0
    for look in looks:
        shot += look.cut_us is not None
        shot_of_look.append(shot)
    return shots, shot_of_look


class _Views:
    """What each shot shows: the median thumbnail of its looks."""

    def __init__(self, looks: Sequence[Look], shot_of_look: list[int]) -> None:
        of_shot: dict[int, list[np.ndarray]] = {}
        for look, shot in zip(looks, shot_of_look, strict=True):
            of_shot.setdefault(shot, []).append(look.thumbnail_hwC)
        self._of_shot = {shot: np.median(thumbnails, axis=0).astype(np.float32) for shot, thumbnails in of_shot.items()}
        self._are_alike: dict[tuple[int, int], bool] = {}

    def are_alike(self, shot: int, other: int) -> bool:
        """Return whether two shots show the same view."""
        pair = (min(shot, other), max(shot, other))
        if pair not in self._are_alike:
            changed = 0.0 if shot == other else changed_fraction(self._of_shot[shot], self._of_shot[other])
            self._are_alike[pair] = changed < CUT
        return self._are_alike[pair]


def _identities(tracks: list[Track], views: _Views) -> list[list[Track]]:
    """Return the tracks of each person: the two most alike groups are merged as long as any are alike."""
    groups = [[track] for track in tracks]
    distances_MM = np.full((len(tracks), len(tracks)), np.inf)
    colors_MK = np.array([track.colors for track in tracks])
    for i, one in enumerate(tracks):
        differences = hellinger_distances(one.colors, colors_MK[:i])
        for j, other in enumerate(tracks[:i]):
            distances_MM[i, j] = distances_MM[j, i] = _distance(one, other, float(differences[j]), views)
    while (pair := _most_alike(groups, distances_MM)) is not None:
        i, j = pair
        groups[i] += groups[j]
        groups[j] = []
        # Who is seen at once with one of them is not the person whom they are.
        is_apart_M = np.isinf(distances_MM[i]) | np.isinf(distances_MM[j])
        joined_M = np.where(is_apart_M, np.inf, np.minimum(distances_MM[i], distances_MM[j]))
        distances_MM[i], distances_MM[:, i] = joined_M, joined_M
        distances_MM[j], distances_MM[:, j] = np.inf, np.inf
    return [group for group in groups if group]


def _most_alike(groups: list[list[Track]], distances_MM: np.ndarray) -> tuple[int, int] | None:
    """Return the two groups that are one person most certainly, or None."""
    if len(groups) < 2:
        return None
    i, j = divmod(int(distances_MM.argmin()), len(groups))
    if distances_MM[i, j] < SAME_COLORS:
        return min(i, j), max(i, j)
    for place in np.argsort(distances_MM, axis=None, kind="stable"):
        i, j = divmod(int(place), len(groups))
        if not distances_MM[i, j] < SIMILAR_COLORS:
            return None
        margin = min(_margin(groups, distances_MM, *pair) for pair in ((i, j), (j, i)))
        if MIN_MARGIN <= margin < np.inf:
            return min(i, j), max(i, j)
    return None


def _margin(groups: list[list[Track]], distances_MM: np.ndarray, i: int, j: int) -> float:
    """Return by how much group `i` is less like those who are seen at once with group `j`; infinite if nobody is."""
    others = [k for k, group in enumerate(groups) if group and k not in (i, j) and np.isinf(distances_MM[j, k])]
    return float(min((distances_MM[i, k] - distances_MM[i, j] for k in others), default=np.inf))


def _distance(one: Track, other: Track, difference: float, views: _Views) -> float:
    """Return how unlike two tracks are whose colors differ so much; infinite if they are seen at once."""
    if one.shot == other.shot and not set(one.looks).isdisjoint(other.looks):
        return np.inf
    if (
        difference < MAX_DIFFERENCE
        and iou(one.box, other.box) > SAME_SEAT_IOU
        and views.are_alike(one.shot, other.shot)
    ):
        return difference * SAME_COLORS / MAX_DIFFERENCE
    return difference


def _tracklets(
    group: list[Track], looks: Sequence[Look], shots: list[Span], shot_of_look: list[int]
) -> Iterator[Tracklet]:
    """Yield the tracklets of a person, ascending and disjoint: a new one where the place has changed after 30 s."""
    end_us = 0
    for track in sorted(group, key=lambda track: track.looks[0]):
        for places in _places(track, looks):
            seen = [track.seen[place] for place in places]
            first, last = _widened(track.looks[places[0]], track.looks[places[-1]], shot_of_look)
            start_us = max(_border_us(first - 1, first, looks, shots, shot_of_look), end_us)
            end_us = max(_border_us(last, last + 1, looks, shots, shot_of_look), end_us)
            if start_us == end_us:
                continue  # seen within another tracklet of the person, or between two of its looks
            yield Tracklet(
                track.shot,
                Span(start_us, end_us),
                median_box(seen),
                np.median([person.keypoints_K3 for person in seen], axis=0).astype(np.float32),
                float(np.median([person.score for person in seen])),
                len(seen),
            )


def _widened(first: int, last: int, shot_of_look: list[int]) -> tuple[int, int]:
    """Return the first and the last look of a tracklet, with the very first or last look of the shot if that alone is missing:
    detectors miss people now and then, and within a tracklet that is bridged."""
    if first == last:
        return first, last
    shots = [-1, -1, *shot_of_look, -1, -1]  # two before and after the looks

    def is_last_missed(look: int, step: int) -> bool:
        return shots[look + 2 + step] == shots[look + 2] != shots[look + 2 + 2 * step]

    return first - is_last_missed(first, -1), last + is_last_missed(last, 1)


def _places(track: Track, looks: Sequence[Look]) -> list[list[int]]:
    """Return the looks of a track, as indices, in groups in which the person stays at one place."""
    start_us = looks[track.looks[0]].time_us
    groups: list[list[int]] = []
    for _, block in groupby(
        range(len(track.looks)), lambda i: (looks[track.looks[i]].time_us - start_us) // PLACE_BLOCK_US
    ):
        part = list(block)
        boxes = [median_box([track.seen[i] for i in group]) for group in (*groups[-1:], part)]
        is_same_place = iou(boxes[0], boxes[-1]) >= SAME_PLACE_IOU or is_part(boxes[0], boxes[-1])
        if is_same_place and groups:
            groups[-1] += part
        else:
            groups.append(part)
    return groups


def _border_us(before: int, after: int, looks: Sequence[Look], shots: list[Span], shot_of_look: list[int]) -> int:
    """Return the time between two consecutive looks at which what is seen changes: the cut, or else about the middle.

    Within a shot that is a whole number of seconds from its beginning, so that windows of people who come and go share frames.
    """
    if before < 0:
        return 0
    if after == len(looks):
        return shots[-1].end_us
    shot = shots[shot_of_look[after]]
    if shot_of_look[before] != shot_of_look[after]:
        return shot.start_us
    middle_us = (looks[before].time_us + looks[after].time_us) // 2 - shot.start_us
    return min(shot.start_us + -(-middle_us // BORDER_US) * BORDER_US, shot.end_us)


def _order(tracklets: tuple[Tracklet, ...]) -> tuple[int, float]:
    return -_seen_us(tracklets), tracklets[0].box[0]


def _seen_us(tracklets: tuple[Tracklet, ...]) -> int:
    return sum(tracklet.span.end_us - tracklet.span.start_us for tracklet in tracklets)
