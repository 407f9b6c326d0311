from dataclasses import replace
from pathlib import Path

import pandas as pd
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
    with pytest.raises(
        ManifestError, match=r"is not a dataset: it must hold list.parquet, list.txt or instances.parquet, and videos/"
    ):
        read_dataset(str(labels), None, 52)


def test_later_spans_are_of_the_files_that_are_known(tmp_path: Path) -> None:
    dataset, labels = tmp_path / "dataset", tmp_path / "labels"
    whole = {"region_left": 0, "region_top": 0, "region_width": 40, "region_height": 30}
    for folder, rows in (
        (dataset, [("a.mp4", 0, 2, 1, "A"), ("a.mp4", 2, 3, 2, "A"), ("a.mp4", 2, 3, 5, "A")]),
        (
            labels,
            [("a.mp4", 0, 2, 7, None), ("a.mp4", 2, 3, 5, None), ("a.mp4", 4, 5, 9, None), ("b.mp4", 0, 1, 3, "B")],
        ),
    ):
        folder.mkdir()
        table = pd.DataFrame(rows, columns=["video", "start_s", "end_s", "action", "subject"])
        if folder == dataset:
            table = table.assign(**whole)
        table.to_parquet(folder / "instances.parquet")
    clips = read_dataset(str(dataset), str(labels), 52)
    assert [(clip.name, clip.label, clip.subject) for clip in clips] == [
        ("a.mp4#t=0,2", 7, "A"),
        ("a.mp4#t=2,3", 5, "A"),
        ("a.mp4#t=4,5", 9, "A"),
        ("b.mp4#t=0,1", 3, "B"),
    ]
    assert [clip.uri for clip in clips] == [f"{dataset}/videos/a.mp4"] * 3 + [f"{labels}/videos/b.mp4"]
    assert [clip.region for clip in clips] == [Region(0, 0, 40, 30)] * 3 + [None]
    (tmp_path / "list.parquet").write_bytes(list_file(clips))
    assert read_list(str(tmp_path / "list.parquet"), "/elsewhere", 52) == clips


def test_new_and_corrected_clips_are_counted() -> None:
    clips = clips_of("ab")
    assert delta_since([known(train="ab")], clips) == DataDelta(0, 0)
    assert delta_since([known(train="a")], clips) == DataDelta(2, 0)
    corrected = [Clip(clip.name, clip.uri, clip.label + 10 * (clip.subject == "a")) for clip in clips]
    assert delta_since([known(train="a")], corrected) == DataDelta(2, 2)
    assert DataDelta(2, 2).num_clips == 4


def test_clips_that_any_version_knows_are_not_new() -> None:
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


def test_subjects_trained_on_are_never_judged_on() -> None:
    everybody = "abcdefghijklmnopqrstuvwxyz"
    train, judged = hold_out(known(train="abcdef", validation="gh"), clips_of(everybody), 0.3)
    assert subjects_of(train) | subjects_of(judged) == set(everybody)
    assert not subjects_of(train) & subjects_of(judged)
    assert not subjects_of(judged) & set("abcdef")
    assert subjects_of(judged) >= set("gh")
    assert 2 <= len(subjects_of(judged) - set("gh")) <= 10, "about 0.3 of 18"


def test_renamed_subjects_are_known_by_their_clips() -> None:
    """Production was trained from list.txt, whose names begin with a subject; a later table has other names for them."""
    names = {subject: f"person {subject}" for subject in "abcdefgh"} | {"c": "person a"}
    clips = [replace(clip, subject=names[clip.subject or ""]) for clip in clips_of("abcdefgh", each=3)]
    # Each has a third take, which production does not know.
    table = known(train="abcd", validation="ef")
    train, judged = hold_out(table, clips, 1.0)
    assert subjects_of(train) == {"person a", "person b", "person d"}
    assert subjects_of(judged) == {f"person {subject}" for subject in "efgh"}
    assert len(train) == 4 * 3
    train, judged = hold_out(table, clips, 1e-9)
    assert subjects_of(judged) == {"person e", "person f"}, "subjects held out are known too"


def test_subjects_on_both_sides_count_as_trained_on() -> None:
    both = [replace(clip, subject="one") for clip in clips_of("ae")]
    train, judged = hold_out(known(train="ab", validation="ef"), [*both, *clips_of("f")], 1.0)
    assert (subjects_of(train), subjects_of(judged)) == ({"one"}, {"f"})
    table = pa.concat_tables([known(train="a", held_out="f"), known(base_run="f", held_out="g")])
    train, judged = hold_out(table, clips_of("afg"), 1.0)
    assert (subjects_of(train), subjects_of(judged)) == (set("af"), {"g"})
    nameless = known(train="a", validation="fg").to_pylist()
    nameless = [row | {"subject": None if row["subject"] == "f" else row["subject"]} for row in nameless]
    train, judged = hold_out(pa.Table.from_pylist(nameless, schema=TRAINING_CLIPS), clips_of("afg"), 1.0)
    assert (subjects_of(train), subjects_of(judged)) == (set("af"), {"g"}), (
        "f may be one of the nameless who were trained on"
    )


def test_held_out_subjects_stay_held_out() -> None:
    train, judged = hold_out(known(train="cd", validation="gh"), clips_of("cdefghijkl"), 0.5)
    held = subjects_of(judged)
    assert {"g", "h"} < held
    trained_on = "".join(str(subject) for subject in sorted(subjects_of(train), key=str))
    later = known(train=trained_on[1:], validation=trained_on[:1], held_out="".join(map(str, held)))
    _, judged = hold_out(later, clips_of("cdefghijklXYZ"), 0.5)
    assert subjects_of(judged) - set("XYZ") == held, "subjects validated on do not join them"


def test_a_dataset_without_subjects_to_hold_out_is_refused() -> None:
    with pytest.raises(
        ManifestError, match=r"0 of 4 clips are of held-out subjects and 4 are not; both sides need some"
    ):
        hold_out(known(train="ab"), clips_of("ab"), 0.2)
    with pytest.raises(ManifestError, match=r"the subject of c\.mp4 is unknown, so nobody can be held out"):
        hold_out(known(train="ab"), [*clips_of("ab"), Clip("c.mp4", "/v/c.mp4", 1)], 0.2)


def test_a_list_keeps_the_location_of_each_clip(tmp_path: Path) -> None:
    clips = [Clip("a.mp4", "s3://one/a.mp4", 3, Region(1, 2, 30, 40), "p"), Clip("b.mp4", "/two/b.mp4", 4)]
    (tmp_path / "list.parquet").write_bytes(list_file(clips))
    assert read_list(str(tmp_path / "list.parquet"), "/elsewhere", 52) == clips


def test_subjects_that_return_are_remembered() -> None:
    first = known(train="abc", validation="d")
    second = known(train="ae", held_out="f")
    second = pa.concat_tables([second, absent_clips(first, second)])
    assert sorted(zip(second["subject"].to_pylist(), second["split"].to_pylist(), strict=True))[::2] == [
        *(("a", "train"), ("b", "earlier"), ("c", "earlier"), ("d", "held-out"), ("e", "train"), ("f", "held-out")),
    ]
    train, judged = hold_out(second, clips_of("abcdef"), 1.0)
    assert subjects_of(judged) == {"d", "f"}
    assert subjects_of(train) == set("abce")
