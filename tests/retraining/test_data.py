from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.retraining.data import DataDelta, absent_clips, delta_since, hold_out, list_file, read_dataset
from microaction.schema import TRAINING_CLIPS
from microaction.video import Region


def clips_of(subjects: str, *, each: int = 2) -> list[Clip]:
    return [Clip(f"{s}_{i}.mp4", f"/v/{s}_{i}.mp4", i, subject=s) for s in subjects for i in range(each)]


def known(**splits: str) -> pa.Table:
    rows = [
        {
            "name": clip.name,
            "label": clip.label,
            "subject": clip.subject,
            "split": split.replace("_", "-"),
            "is_readable": True,
        }
        for split, subjects in splits.items()
        for clip in clips_of(subjects)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)


def subjects_of(clips: list[Clip]) -> set[str | None]:
    return {clip.subject for clip in clips}


def test_later_lists_correct_and_add(tmp_path: Path) -> None:
    dataset, labels = tmp_path / "dataset", tmp_path / "labels"
    for folder in (dataset, labels / "videos"):
        folder.mkdir(parents=True)
    (dataset / "list.txt").write_text("A_1.mp4 1\nA_2.mp4 2\n")
    (labels / "2026-11-02.txt").write_text("A_1.mp4 7\nB_1.mp4 3\n")
    (labels / "2026-11-09.txt").write_text("B_1.mp4 4\nA_2.mp4 2\n")
    (labels / "videos/notes.txt").write_text("no list")
    clips = read_dataset(str(dataset), str(labels), 52)
    assert clips == [
        Clip("A_1.mp4", f"{dataset}/videos/A_1.mp4", 7, subject="A"),
        Clip("A_2.mp4", f"{dataset}/videos/A_2.mp4", 2, subject="A"),
        Clip("B_1.mp4", f"{labels}/videos/B_1.mp4", 4, subject="B"),
    ]
    assert [clip.label for clip in read_dataset(str(dataset), None, 52)] == [1, 2]
    assert len(read_dataset(str(dataset), str(tmp_path / "not-labeled-yet"), 52)) == 2
    with pytest.raises(ManifestError, match=r"is not a dataset: it must hold list.parquet or list.txt, and videos/"):
        read_dataset(str(labels), None, 52)


def test_news_are_clips_that_production_does_not_know_so() -> None:
    clips = clips_of("ab")
    assert delta_since([known(train="ab")], clips) == DataDelta(0, 0)
    assert delta_since([known(train="a")], clips) == DataDelta(2, 0)
    corrected = [Clip(clip.name, clip.uri, clip.label + 10 * (clip.subject == "a")) for clip in clips]
    assert delta_since([known(train="a")], corrected) == DataDelta(2, 2)
    assert DataDelta(2, 2).num_clips == 4


def test_what_several_versions_know_together_is_no_news() -> None:
    clips = clips_of("abc")
    corrected = [Clip(clip.name, clip.uri, clip.label + 10 * (clip.subject == "a")) for clip in clips]
    knows_corrected = pa.Table.from_pylist(
        [
            {"name": clip.name, "label": clip.label, "subject": "a", "split": "train", "is_readable": True}
            for clip in corrected[:2]
        ],
        schema=TRAINING_CLIPS,
    )
    production, second, third = known(train="a"), known(train="ab"), known(train="c")
    assert delta_since([production, second], clips) == DataDelta(2, 0)
    assert delta_since([production, second, third], clips) == DataDelta(0, 0)
    assert delta_since([production, second, third], corrected) == DataDelta(0, 2)
    assert delta_since([production, second, third, knows_corrected], corrected) == DataDelta(0, 0)
    assert delta_since([production, second, third, knows_corrected], clips) == DataDelta(0, 0), (
        "production knows the old label"
    )


def test_people_whom_production_has_learned_from_are_never_judged_on() -> None:
    everybody = "abcdefghijklmnopqrstuvwxyz"
    train, judged = hold_out(known(train="abcdef", validation="gh"), clips_of(everybody), 0.3)
    assert subjects_of(train) | subjects_of(judged) == set(everybody)
    assert not subjects_of(train) & subjects_of(judged)
    assert not subjects_of(judged) & set("abcdef")
    assert subjects_of(judged) >= set("gh")
    assert 2 <= len(subjects_of(judged) - set("gh")) <= 10, "about 0.3 of 18"


def test_people_who_go_by_other_names_now_are_known_by_their_clips() -> None:
    """Production was trained from list.txt, whose names begin with a subject; the table that came later names people."""
    names = {subject: f"person {subject}" for subject in "abcdefgh"} | {"c": "person a"}
    clips = [replace(clip, subject=names[clip.subject or ""]) for clip in clips_of("abcdefgh", each=3)]
    # A third take of each, which production does not know.
    table = known(train="abcd", validation="ef")
    train, judged = hold_out(table, clips, 1.0)
    assert subjects_of(train) == {"person a", "person b", "person d"}
    assert subjects_of(judged) == {f"person {subject}" for subject in "efgh"}
    assert len(train) == 4 * 3
    train, judged = hold_out(table, clips, 1e-9)
    assert subjects_of(judged) == {"person e", "person f"}, "who was held out is not forgotten either"


def test_who_is_on_both_sides_has_been_learned_from() -> None:
    both = [replace(clip, subject="one") for clip in clips_of("ae")]
    train, judged = hold_out(known(train="ab", validation="ef"), [*both, *clips_of("f")], 1.0)
    assert (subjects_of(train), subjects_of(judged)) == ({"one"}, {"f"})
    table = pa.concat_tables([known(train="a", held_out="f"), known(base_run="f", held_out="g")])
    train, judged = hold_out(table, clips_of("afg"), 1.0)
    assert (subjects_of(train), subjects_of(judged)) == (set("af"), {"g"})
    nameless = known(train="a", validation="fg").to_pylist()
    nameless = [row | {"subject": None if row["subject"] == "f" else row["subject"]} for row in nameless]
    train, judged = hold_out(pa.Table.from_pylist(nameless, schema=TRAINING_CLIPS), clips_of("afg"), 1.0)
    assert (subjects_of(train), subjects_of(judged)) == (set("af"), {"g"}), "f may have been any of those learned from"


def test_who_is_held_out_once_stays_so() -> None:
    train, judged = hold_out(known(train="cd", validation="gh"), clips_of("cdefghijkl"), 0.5)
    held = subjects_of(judged)
    assert {"g", "h"} < held
    learned = "".join(str(subject) for subject in sorted(subjects_of(train), key=str))
    later = known(train=learned[1:], validation=learned[:1], held_out="".join(map(str, held)))
    _, judged = hold_out(later, clips_of("cdefghijklXYZ"), 0.5)
    assert subjects_of(judged) - set("XYZ") == held, "not even who was validated on joins them"


def test_without_people_to_hold_out_it_says_so() -> None:
    with pytest.raises(
        ManifestError, match=r"0 of 4 clips are of held-out subjects and 4 are not; both sides need some"
    ):
        hold_out(known(train="ab"), clips_of("ab"), 0.2)
    with pytest.raises(ManifestError, match=r"c.mp4 does not tell its subject"):
        hold_out(known(train="ab"), [*clips_of("ab"), Clip("c.mp4", "/v/c.mp4", 1)], 0.2)


def test_a_list_keeps_where_each_clip_lies(tmp_path: Path) -> None:
    clips = [Clip("a.mp4", "s3://one/a.mp4", 3, Region(1, 2, 30, 40), "p"), Clip("b.mp4", "/two/b.mp4", 4)]
    (tmp_path / "list.parquet").write_bytes(list_file(clips))
    assert read_list(str(tmp_path / "list.parquet"), "/elsewhere", 52) == clips


def test_people_who_are_away_for_a_while_are_known_when_they_return() -> None:
    first = known(train="abc", validation="d")
    second = known(train="ae", held_out="f")
    second = pa.concat_tables([second, absent_clips(first, second)])
    assert sorted(zip(second["subject"].to_pylist(), second["split"].to_pylist(), strict=True))[::2] == [
        *(("a", "train"), ("b", "earlier"), ("c", "earlier"), ("d", "held-out"), ("e", "train"), ("f", "held-out")),
    ]
    train, judged = hold_out(second, clips_of("abcdef"), 1.0)
    assert subjects_of(judged) == {"d", "f"}
    assert subjects_of(train) == set("abce")
