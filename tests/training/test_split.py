"""Splits by subject: no subject is on both sides."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microaction.clips.manifest import Clip, ManifestError
from microaction.training.split import read_splits, split_by_subject
from tests.training.runs import settings


def clips_of(counts: list[int]) -> list[Clip]:
    """Return that many clips of each subject, mixed."""
    names = [f"{subject:04d}_00_{number:04d}.mp4" for subject, count in enumerate(counts) for number in range(count)]
    return [Clip(name, f"/videos/{name}", 0, subject=name[:4]) for name in sorted(names, key=lambda name: name[::-1])]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 100))
def test_no_subject_is_on_both_sides_and_no_clip_is_lost(counts: list[int], val_fraction: float, seed: int) -> None:
    clips = clips_of(counts)
    train, held_out = split_by_subject(clips, val_fraction, seed)
    assert not {clip.subject for clip in train} & {clip.subject for clip in held_out}
    assert train
    assert held_out
    assert sorted(clip.name for clip in train + held_out) == sorted(clip.name for clip in clips)
    assert [clip for clip in clips if clip in train] == train, "in the order of the list"
    if len({clip.subject for clip in train}) > 1:
        assert val_fraction * len(clips) <= len(held_out) < val_fraction * len(clips) + max(counts)
    assert split_by_subject(clips, val_fraction, seed) == (train, held_out), "the same seed splits the same way"


def test_another_seed_holds_out_other_subjects() -> None:
    held_out = {
        frozenset(clip.subject for clip in split_by_subject(clips_of([3] * 20), 0.2, seed)[1]) for seed in (1, 2)
    }
    assert len(held_out) == 2


def test_clips_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(ManifestError, match="all 4 clips are of one subject: nobody can be held out"):
        split_by_subject(clips_of([4]), 0.2, 0)
    with pytest.raises(
        ManifestError, match=r"the subject of a\.mp4 is unknown, .*SSSS_BB_NNNN\.mp4, or give a Parquet"
    ):
        split_by_subject([Clip("a.mp4", "/videos/a.mp4", 0)], 0.2, 0)


def test_both_lists_are_split_again_together(tmp_path: Path) -> None:
    for split, subjects in (("train", range(6)), ("val", range(4, 10))):  # 4 and 5 are on both sides of the lists
        for subject in subjects:
            (tmp_path / f"{subject:04d}_{split}.mp4").touch()
        (tmp_path / f"{split}.txt").write_text("".join(f"{subject:04d}_{split}.mp4 1\n" for subject in subjects))
    train, held_out = read_splits(settings(tmp_path, tmp_path, "run", split_by="subject", val_fraction=0.3))
    assert len(train) + len(held_out) == 12
    assert not {clip.subject for clip in train} & {clip.subject for clip in held_out}
    train, held_out = read_splits(settings(tmp_path, tmp_path, "run"))
    assert [len(train), len(held_out)] == [6, 6]
    assert {clip.subject for clip in train} & {clip.subject for clip in held_out} == {"0004", "0005"}
    alone = settings(tmp_path, tmp_path, "run", val_list=None, val_videos=None, split_by="subject")
    assert sum(map(len, read_splits(alone))) == 6
