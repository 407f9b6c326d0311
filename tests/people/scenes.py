"""Drawn interviews of several people, and how people that were found are compared with those who were drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microaction.people import Look, MoveNet, Tracklet, VideoPeople, find_people, take_looks
from microaction.synthetic.scene import Place, Shot, close_up, make_scene, picture_in_picture, side_by_side
from microaction.video import probe
from microaction.video.windows import MICROSECONDS, Span

FPS = 4  # enough for looks
ROOM = (640, 360)


def scene_shots(kind: str, choice: np.random.Generator) -> list[Shot]:
    """Return the shots of a kind of interview of the people 0 and 1, of random lengths."""
    shots_of: dict[str, list[tuple[dict[int, Place], bool]]] = {
        "two-shot": [(side_by_side(0, 1), False)],
        "close-ups": [
            (side_by_side(0, 1), False),
            (close_up(0), False),
            (close_up(1), False),
            (side_by_side(0, 1), False),
        ],
        "swapped sides": [(side_by_side(0, 1), False), (side_by_side(1, 0), False)],
        "table": [(side_by_side(0, 1), True), (close_up(1), False), (side_by_side(0, 1), True)],
        "picture in picture": [(picture_in_picture(0, 1), False), (picture_in_picture(1, 0), False)],
        "leaves and returns": [
            (side_by_side(0, 1), False),
            ({0: side_by_side(0, 1)[0]}, False),
            (side_by_side(0, 1), False),
        ],
        "split screen": [({0: Place(0, 0.2, 0.5, 0.6), 1: Place(0.5, 0.2, 0.5, 0.6)}, False)],
        "room": [(side_by_side(0, 1, height=0.6), False), (close_up(0), False)],
    }
    shots, end_s = [], 0.0
    for places, has_table in shots_of[kind]:
        end_s += round(float(choice.uniform(8, 16)) * FPS) / FPS
        shots.append(Shot(end_s, places, has_table))
    return shots


KINDS = (
    "two-shot",
    "close-ups",
    "swapped sides",
    "table",
    "picture in picture",
    "leaves and returns",
    "split screen",
    "room",
)


def draw_scene(path: Path, kind: str, seed: int, size: tuple[int, int] = ROOM) -> list[Shot]:
    """Draw an interview of a kind, unless the file exists; return its shots."""
    choice = np.random.default_rng([seed, 0x5C])
    shots = scene_shots(kind, choice)
    subjects = choice.choice(2000, 2, replace=False).tolist()
    if not path.exists():
        make_scene(path, subject_seeds=subjects, shots=shots, seed=seed, size=size, fps=FPS)
    return shots


def looks_at(path: Path) -> tuple[list[Look], int]:
    """Return the looks of a whole video, and its length in microseconds."""
    duration_us = round(probe(str(path)).duration_s * MICROSECONDS)
    return list(take_looks(str(path), Span(0, duration_us), MoveNet())), duration_us


@dataclass(frozen=True)
class Comparison:
    """Found people against drawn ones: how many numbers beyond one each person has, and how many numbers are of two people."""

    num_splits: int
    num_mixtures: int
    num_missed: int
    found: VideoPeople


def compare(path: Path, shots: list[Shot], size: tuple[int, int] = ROOM) -> Comparison:
    """Follow the people of a drawn interview and compare them with the truth."""
    looks, duration_us = looks_at(path)
    found = find_people(looks, duration_us)
    numbers_of: dict[int, set[int]] = {}
    people_of: dict[int, set[int]] = {}
    for person in found.people:
        drawn = {who for tracklet in person.tracklets for who in _drawn_people(tracklet, shots, size)}
        for who in drawn:
            numbers_of.setdefault(who, set()).add(person.number)
        people_of[person.number] = drawn
    shown = {person for shot in shots for person in shot.places}
    return Comparison(
        sum(len(numbers) - 1 for numbers in numbers_of.values()),
        sum(len(people) > 1 for people in people_of.values()),
        len(shown - set(numbers_of)),
        found,
    )


def _drawn_people(tracklet: Tracklet, shots: list[Shot], size: tuple[int, int]) -> Iterator[int]:
    """Yield who is drawn where somebody was found, in each shot most of which the tracklet covers."""
    x, y = (tracklet.box[0] + tracklet.box[2]) / 2 / size[0], (tracklet.box[1] + tracklet.box[3]) / 2 / size[1]
    start_s = 0.0
    for shot in shots:
        covered_s = min(tracklet.span.end_s, shot.end_s) - max(tracklet.span.start_s, start_s)
        if covered_s > (shot.end_s - start_s) / 2:
            inside = [
                (place.width * place.height, person)
                for person, place in shot.places.items()
                if place.left <= x <= place.left + place.width and place.top <= y <= place.top + place.height
            ]
            if inside:
                yield min(inside)[1]
        start_s = shot.end_s


def draw_clip(path: Path, *subject_seeds: int) -> Path:
    """Draw a second of people side by side, each 160×192 pixels; return the path."""
    places = side_by_side(*range(len(subject_seeds)))
    size = (160 * len(subject_seeds), 192)
    make_scene(
        path, subject_seeds=subject_seeds, shots=[Shot(1.0, places)], seed=sum(subject_seeds), size=size, fps=FPS
    )
    return path
