"""Who is who: drawn interviews of two people of every kind, and rules on looks that are made up."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from microaction.people import Look, SeenPerson, find_people
from microaction.people.looks import hellinger_distance, iou
from microaction.video.windows import MICROSECONDS, Span
from tests.people.scenes import KINDS, compare, draw_scene

SIZE = (320, 180)
VIEWS = [np.full((18, 32, 3), gray, np.uint8) for gray in (60, 180)]


def seen(left: float, color: int, *, height: float = 100, score: float = 0.8) -> SeenPerson:
    """Return a person at a place, with clothes of one color."""
    keypoints_K3 = np.full((17, 3), score, np.float32)
    colors = np.zeros(128, np.float32)
    colors[color] = 1
    return SeenPerson((left, 170 - height, left + 0.4 * height, 170), keypoints_K3, score, colors)


def video(*looks: list[SeenPerson], cuts: tuple[int, ...] = (), views: tuple[int, ...] = ()) -> list[Look]:
    """Return looks 2 s apart; the camera cut before the looks `cuts`, of which `views` are seen."""
    made, view = [], 0
    for number, people in enumerate(looks):
        if number in cuts:
            view = views[cuts.index(number)]
        cut_us = (2 * number - 1) * MICROSECONDS if number in cuts else None
        made.append(Look(2 * number * MICROSECONDS, *SIZE, VIEWS[view], tuple(people), cut_us))
    return made


def duration_us(looks: list[Look]) -> int:
    return 2 * len(looks) * MICROSECONDS


def test_two_drawn_people_keep_their_numbers_when_they_swap_sides(tmp_path: Path) -> None:
    shots = draw_scene(tmp_path / "a.mp4", "swapped sides", 0)
    comparison = compare(tmp_path / "a.mp4", shots)
    assert comparison.num_mixtures == comparison.num_missed == comparison.num_splits == 0
    assert len(comparison.found.people) == 2
    np.testing.assert_allclose(
        [span.end_s for span in comparison.found.shots], [shot.end_s for shot in shots], atol=1e-6
    )


@pytest.mark.slow
def test_drawn_people_in_interviews_of_every_kind(tmp_path: Path) -> None:
    """`python -m tests.benchmarks.people` counts over 210 of them."""
    comparisons = []
    for kind in KINDS:
        for seed in range(2):
            path = tmp_path / f"{kind}-{seed}.mp4"
            comparisons.append(compare(path, draw_scene(path, kind, seed)))
    assert sum(comparison.num_mixtures for comparison in comparisons) == 0
    assert sum(comparison.num_missed for comparison in comparisons) == 0
    assert sum(comparison.num_splits for comparison in comparisons) <= 1


def test_numbers_are_by_time_seen_and_shots_cover_the_video() -> None:
    looks = video(*[[seen(40, 1), seen(200, 2)]] * 5, *[[seen(200, 2)]] * 5)
    found = find_people(looks, duration_us(looks))
    assert [person.tracklets[0].box[0] for person in found.people] == [200, 40]
    assert [person.number for person in found.people] == [1, 2]
    assert [person.seen_us for person in found.people] == [20 * MICROSECONDS, 9 * MICROSECONDS]
    assert found.shots == (Span(0, 20 * MICROSECONDS),)


def test_ties_are_numbered_from_left_to_right() -> None:
    looks = video(*[[seen(200, 2), seen(40, 1)]] * 5)
    assert [person.tracklets[0].box[0] for person in find_people(looks, duration_us(looks)).people] == [40, 200]


def test_a_look_that_misses_a_person_does_not_split() -> None:
    both, one = [seen(40, 1), seen(200, 2)], [seen(200, 2)]
    looks = video(both, both, one, one, both, both)
    first, second = find_people(looks, duration_us(looks)).people
    assert first.seen_us == second.seen_us == duration_us(looks)


def test_swapped_seats_are_told_by_colors() -> None:
    looks = video(*[[seen(40, 1), seen(200, 2)]] * 4, *[[seen(40, 2), seen(200, 1)]] * 4, cuts=(4,), views=(0,))
    first, second = find_people(looks, duration_us(looks)).people
    assert [tracklet.box[0] for tracklet in first.tracklets] == [40, 200]
    assert [tracklet.box[0] for tracklet in second.tracklets] == [200, 40]


def test_the_same_seat_in_the_same_view_is_the_same_person() -> None:
    """Though the light has changed the colors a little."""
    first, later = seen(40, 1), seen(45, 1)
    mixed = first.colors * 0.8
    mixed[3] = 0.2
    later = SeenPerson(later.box, later.keypoints_K3, later.score, mixed)
    assert 0.2 < hellinger_distance(first.colors, mixed) < 0.45
    for view, num_people in ((0, 1), (1, 2)):
        looks = video(*[[first]] * 4, *[[]] * 4, *[[later]] * 4, cuts=(4, 8), views=(1, view))
        assert len(find_people(looks, duration_us(looks)).people) == num_people


def test_two_who_are_seen_at_once_are_never_one() -> None:
    """In uniforms, on every seat: the close-up could be either, and is not both."""
    looks = video(*[[seen(40, 1), seen(200, 1)]] * 4, *[[seen(120, 1)]] * 4, cuts=(4,), views=(1,))
    found = find_people(looks, duration_us(looks)).people
    by_shot = [{tracklet.shot for tracklet in person.tracklets} for person in found]
    assert sum(0 in shots for shots in by_shot) == 2
    assert sum(1 in shots for shots in by_shot) == 1


def test_who_passes_by_is_no_person() -> None:
    looks = video(*[[seen(40, 1)]] * 4, *[[seen(40, 1), seen(200, 2)]] * 2, *[[seen(40, 1)]] * 4)
    found = find_people(looks, duration_us(looks))
    assert [len(found.people), len(found.seen_briefly)] == [1, 1]
    small = video(*[[seen(40, 1), seen(200, 2, height=30)]] * 8)
    found = find_people(small, duration_us(small))
    assert [len(found.people), [person.number for person in found.too_small]] == [1, [2]]


def test_a_close_up_makes_nobody_small() -> None:
    """The frame is 180 pixels high; in the two-shot both are 60, and one has a close-up."""
    both = [seen(40, 1, height=60), seen(200, 2, height=60)]
    looks = video(*[both] * 6, *[[seen(80, 1, height=165)]] * 4, cuts=(6,), views=(1,))
    found = find_people(looks, duration_us(looks))
    assert [len(found.people), len(found.too_small)] == [2, 0]


def test_who_is_found_twice_now_and_then_is_one() -> None:
    """A second box around the same person, with other colors, in a few looks."""
    alone, twice = [seen(40, 1)], [seen(40, 1), seen(50, 3)]
    looks = video(*[alone] * 4, twice, *[alone] * 3, twice, *[alone] * 4)
    found = find_people(looks, duration_us(looks))
    assert [len(found.people), len(found.seen_briefly), len(found.too_small)] == [1, 0, 0]
    together = video(*[[seen(40, 1)]] * 4, *[[seen(40, 1), seen(50, 3)]] * 6, *[[seen(40, 1)]] * 4)
    assert len(find_people(together, duration_us(together)).people) == 2, "two who embrace are two"


WHOLE = seen(40, 1, score=0.7)
HALF = replace(seen(40, 1, score=0.4), box=(40, 70, 80, 125))


def test_who_is_found_whole_and_in_part_is_one() -> None:
    """Whole in one look and without legs in the next, both ways in some looks."""
    looks = video(*[[WHOLE], [HALF], [WHOLE], [HALF], [WHOLE], [HALF, WHOLE]] * 3)
    (person,) = find_people(looks, duration_us(looks)).people
    (tracklet,) = person.tracklets
    assert (tracklet.num_looks, person.seen_us) == (18, duration_us(looks))
    assert tracklet.box == WHOLE.box, "where both are found, the likelier one counts: 12 of 18"


def test_a_part_of_a_person_is_at_the_same_place() -> None:
    """Mostly whole for half a minute, then mostly without legs."""
    assert iou(WHOLE.box, HALF.box) < 0.6
    looks = video(*[[WHOLE], [WHOLE], [HALF]] * 5, *[[WHOLE], [HALF], [HALF]] * 5)
    (person,) = find_people(looks, duration_us(looks)).people
    assert len(person.tracklets) == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(HALF, colors=seen(40, 2).colors), id="other colors"),
        pytest.param(seen(51, 1), id="beside"),
    ],
)
def test_who_hides_another_by_turns_is_another(other: SeenPerson) -> None:
    assert iou(WHOLE.box, other.box) > 0.5
    looks = video([WHOLE, other], *[[WHOLE], [other]] * 9)
    assert len(find_people(looks, duration_us(looks)).people) == 2


def test_who_are_seen_at_once_twice_in_a_row_are_two() -> None:
    """Though later looks, many more, show only one or the other."""
    for num_common, num_people in ((1, 1), (2, 2)):
        looks = video(*[[WHOLE, HALF]] * num_common, *[[WHOLE], [HALF]] * 12)
        assert len(find_people(looks, duration_us(looks)).people) == num_people


def test_who_moves_to_another_seat_has_another_stay() -> None:
    looks = video(*[[seen(40, 1)]] * 20, *[[seen(40 + 8 * step, 1)] for step in range(1, 16)], *[[seen(160, 1)]] * 20)
    (person,) = find_people(looks, duration_us(looks)).people
    assert len(person.tracklets) > 1
    spans = [tracklet.span for tracklet in person.tracklets]
    assert all(before.end_us == after.start_us for before, after in pairwise(spans))
    assert spans[0].start_us == 0
    assert spans[-1].end_us == duration_us(looks)


def test_a_shot_of_one_look_belongs_to_who_is_known_from_others() -> None:
    looks = video(
        *[[seen(40, 1), seen(200, 2)]] * 4,
        [seen(120, 2)],
        *[[seen(40, 1), seen(200, 2)]] * 4,
        cuts=(4, 5),
        views=(1, 0),
    )
    first, second = find_people(looks, duration_us(looks)).people
    assert [tracklet.shot for tracklet in first.tracklets] == [0, 1, 2]
    assert [tracklet.shot for tracklet in second.tracklets] == [0, 2]
    stranger = video(*[[seen(40, 1)]] * 4, [seen(40, 1), seen(200, 2)], *[[seen(40, 1)]] * 4)
    found = find_people(stranger, duration_us(stranger))
    assert len(found.people) == 1
    assert (found.too_small, found.seen_briefly) == ((), ())


def test_a_video_of_one_look_has_its_person() -> None:
    looks = video([seen(40, 1)])
    assert len(find_people(looks, MICROSECONDS).people) == 1
    assert find_people([], MICROSECONDS).people == ()
    assert find_people([], MICROSECONDS).shots == (Span(0, MICROSECONDS),)


def test_iou() -> None:
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
