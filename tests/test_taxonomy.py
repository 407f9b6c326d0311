"""The taxonomy, against the files of the dataset."""

from collections import Counter
from pathlib import Path

from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS


def test_52_distinct_actions_have_7_body_parts() -> None:
    assert len(ACTIONS) == len(set(ACTIONS)) == len(BODY_PART_OF) == 52
    assert len(BODY_PARTS) == 7


def test_body_parts_have_the_published_ranges_of_labels() -> None:
    assert Counter(BODY_PART_OF) == {0: 5, 1: 6, 2: 13, 3: 8, 4: 6, 5: 10, 6: 4}
    assert list(BODY_PART_OF) == sorted(BODY_PART_OF)
    assert BODY_PARTS[BODY_PART_OF[ACTIONS.index("rubbing eyes")]] == "head-hand"


def test_action_names_are_those_of_the_dataset(shared: Path) -> None:
    lines = (shared / "data/ma52/label_name.txt").read_text().splitlines()
    assert [line.split("\t") for line in lines] == [[str(i), name] for i, name in enumerate(ACTIONS)]


def test_body_parts_are_those_of_the_dataset(shared: Path) -> None:
    """The middle part of a file name is its body label."""
    for line in (shared / "data/ma52/train_list_videos.txt").read_text().splitlines():
        name, label = line.split()
        assert BODY_PART_OF[int(label)] == int(name.split("_")[1])
