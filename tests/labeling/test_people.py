"""Labeling person by person: who is labeled when, from which crop, and what is said of those who are not."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import microaction
from microaction.labeling import finding, looks, run
from microaction.labeling.catalog import CATALOG_FILE, read_catalog
from microaction.labeling.ledger import LOOKS
from microaction.labeling.people import PeopleError, read_video_people
from microaction.labeling.people_list import list_of_people, people_of_list, read_people_list
from microaction.labeling.run import run_labeling
from microaction.people import DetectorError, detector
from microaction.schema import PEOPLE_LIST
from microaction.synthetic.scene import Shot, close_up, make_scene, side_by_side
from microaction.video.windows import MICROSECONDS
from tests.labeling.lookers import ListedLooker, LoggingLooker, LookerWithoutDetector, boxes_file, look_log
from tests.labeling.runs import FinishedRun, assert_same_tables, copy_of, label, settings, tables

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

FPS, SIZE = 4, (640, 360)
CUTS_S = (14.0, 21.25)
IGNORED = ("settings_digest",)


@pytest.fixture(scope="module")
def people_run(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run over two people with cuts, one person, nobody, and a file that is no video."""
    folder = tmp_path_factory.mktemp("people")
    archive = folder / "archive"
    archive.mkdir()
    two = [Shot(CUTS_S[0], side_by_side(0, 1)), Shot(CUTS_S[1], close_up(0)), Shot(35.0, side_by_side(0, 1))]
    make_scene(archive / "two.mp4", subject_seeds=[9100, 9101], shots=two, seed=5, size=SIZE, fps=FPS)
    make_scene(
        archive / "one.mp4", subject_seeds=[9102], shots=[Shot(9.0, side_by_side(0))], seed=6, size=SIZE, fps=FPS
    )
    make_scene(archive / "none.mp4", subject_seeds=[9100], shots=[Shot(7.5, {})], seed=7, size=SIZE, fps=FPS)
    (archive / "text.mp4").write_text("not a video")
    out = folder / "out"
    return FinishedRun(archive, out, label(archive, out, model, people="auto"), [])


def of_video(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["video"].str.endswith(f"/{name}")]


def test_every_person_is_labeled_in_every_shot(people_run: FinishedRun) -> None:
    found = tables(people_run.out)
    people = of_video(found["people"], "two.mp4").set_index("person")
    assert list(people.index) == [1, 2]
    assert [sum(span["shot"] == 1 for span in people["spans"][person]) for person in (1, 2)] == [1, 0]
    windows = of_video(found["windows"], "two.mp4")
    for cut_s in CUTS_S:
        assert not ((windows["start_s"] < cut_s) & (windows["end_s"] > cut_s)).any(), "a window crosses a cut"
        assert cut_s in set(windows["start_s"]), "windows begin anew"
        assert cut_s in set(windows["end_s"]), "and end there"
    one = of_video(found["windows"], "one.mp4")
    assert set(one["person"]) == {1}
    assert list(one["start_s"]) == [float(second) for second in range(8)], "one shot has the grid of the whole video"


def test_every_second_of_everybody_is_accounted_for(people_run: FinishedRun) -> None:
    found = tables(people_run.out)
    people, videos, failures = found["people"], found["videos"], found["failures"]
    np.testing.assert_allclose(people["covered_s"] + people["failed_s"], people["seen_s"], atol=1e-9)
    readable = videos.dropna(subset=["duration_s"])
    np.testing.assert_allclose(readable["covered_s"] + readable["failed_s"], readable["duration_s"], atol=1e-9)
    assert not found["windows"].duplicated(["video", "person", "start_s"]).any()
    (nobody,) = of_video(failures, "none.mp4").to_dict("records")
    assert (nobody["error"], nobody["stage"], nobody["start_s"], nobody["end_s"]) == ("nobody_seen", "people", 0.0, 7.5)
    assert pd.isna(nobody["person"])
    numbers = videos.set_index(videos["video"].str.rsplit("/", n=1).str[-1])[["num_people", "num_shots", "nobody_s"]]
    assert list(numbers.loc["two.mp4"]) == [2, 3, 0]
    assert list(numbers.loc["none.mp4"]) == [0, 1, 7.5]
    assert numbers.loc["text.mp4"].isna().all()
    metadata = pq.read_schema(next((people_run.out / "people").glob("*.parquet"))).metadata
    detector = json.loads(metadata[b"microaction.people"])["detector"]
    assert detector["weights_sha256"].startswith("7c9af4df")


def test_one_video_in_this_process_has_the_same_rows(people_run: FinishedRun, model: str) -> None:
    options = {"precision": "fp32", "start_threshold": 0.02}
    labeled = microaction.label_video(people_run.archive / "two.mp4", model, **options)
    found = tables(people_run.out)
    for name in ("windows", "events", "people"):
        expected = of_video(found[name], "two.mp4")
        order = [column for column in ("person", "start_s", "action_id") if column in expected]
        mine = getattr(labeled, name).to_pandas().sort_values(order).reset_index(drop=True)
        theirs = expected.sort_values(order).reset_index(drop=True)
        columns = [column for column in theirs if column not in ("probabilities", "body_part_probabilities", *IGNORED)]
        for column in columns:
            assert str(mine[column].tolist()) == str(theirs[column].tolist()), (name, column)
        if name == "windows":
            np.testing.assert_array_equal(
                np.stack(list(mine["probabilities"])), np.stack(list(theirs["probabilities"]))
            )


def test_neither_chunks_nor_parts_change_anything(
    people_run: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LOOKS_US", 12 * MICROSECONDS)
    out = tmp_path / "out"
    label(people_run.archive, out, model, people="auto", chunk_s=3.1)
    assert len(LOOKS.read_index(str(out))) == 5, "35, 9 and 7.5 s in parts of 12 s"
    assert_same_tables(tables(people_run.out), tables(out), ignoring=IGNORED)


def test_a_run_that_was_stopped_while_looking_looks_at_the_rest(
    people_run: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LOOKS_US", 12 * MICROSECONDS)
    monkeypatch.setattr(finding, "plan_blocks", lambda parts: [range(part, part + 1) for part in range(len(parts))])
    monkeypatch.setattr(finding, "Looker", LoggingLooker)
    look_log(people_run.archive).unlink(missing_ok=True)
    out = tmp_path / "out"

    def stop_early(progress: run.Progress) -> None:
        if progress.stage == "people" and progress.done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_labeling(settings(people_run.archive, out, model, people="auto"), on_progress=stop_early)
    committed = set(LOOKS.read_index(str(out))["chunk_id"].to_pylist())
    assert committed
    look_log(people_run.archive).unlink()
    label(people_run.archive, out, model, people="auto")
    looked = set(look_log(people_run.archive).read_text().split())
    assert not looked & committed, "what was committed is not looked at again"
    assert_same_tables(tables(people_run.out), tables(out))


@pytest.fixture
def listed(people_run: FinishedRun) -> pa.Table:
    people = read_video_people(str(people_run.out))
    assert people is not None
    return list_of_people(people, read_catalog(str(people_run.out / CATALOG_FILE)))


Edit = Callable[[pd.DataFrame], pd.DataFrame]


def edited(listed: pa.Table, file: Path, edit: Edit) -> str:
    frame = listed.to_pandas(types_mapper=pd.ArrowDtype)
    pq.write_table(pa.Table.from_pandas(edit(frame), schema=PEOPLE_LIST, preserve_index=False), file)
    return str(file)


def test_a_list_of_people_labels_what_was_changed_in_it(
    people_run: FinishedRun, listed: pa.Table, model: str, tmp_path: Path
) -> None:
    out = copy_of(people_run.out, tmp_path)
    file = edited(listed, tmp_path / "same.parquet", lambda people: people)
    assert label(people_run.archive, out, model, people=file).num_chunks == 0, "the same crops are the same work"
    assert_same_tables(tables(people_run.out), tables(out), ignoring=("reason",))
    assert "nobody is listed" in set(tables(out)["failures"]["reason"])

    def named(people: pd.DataFrame) -> pd.DataFrame:
        return people.assign(name=people["name"].mask(people["person"] == 2, "Ann"))

    file = edited(listed, tmp_path / "named.parquet", named)
    assert label(people_run.archive, out, model, people=file).num_chunks == 0, "a name changes no label"
    people = tables(out)["people"].set_index("person")
    assert people.loc[2, "name"] == "Ann"

    def without_second(people: pd.DataFrame) -> pd.DataFrame:
        return people[people["person"] == 1]

    file = edited(listed, tmp_path / "deleted.parquet", without_second)
    assert label(people_run.archive, out, model, people=file).num_chunks == 1, "the chunk in which the person was"
    windows = tables(out)["windows"]
    assert set(windows["person"]) == {1}
    before = tables(people_run.out)["windows"]
    kept = before[before["person"] == 1].reset_index(drop=True)
    np.testing.assert_array_equal(np.stack(list(kept["probabilities"])), np.stack(list(windows["probabilities"])))

    def moved(people: pd.DataFrame) -> pd.DataFrame:
        return people.assign(left=people["left"].mask(people["person"] == 2, people["left"] + 20))

    file = edited(listed, tmp_path / "moved.parquet", moved)
    label(people_run.archive, out, model, people=file)
    other = tables(out)["windows"]
    is_first = (other["person"] == 1).to_numpy()
    same = [list(a) == list(b) for a, b in zip(other["probabilities"], before["probabilities"], strict=True)]
    assert np.array(same)[is_first].all()
    assert not np.array(same)[~is_first].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end_s": 3.0, "start_s": 4.0}, r"row 1: 4 s to 3 s is not a span of .*one\.mp4"),
        ({"video": "/nowhere.mp4"}, r"row 1: the archive has no readable video /nowhere\.mp4"),
        ({"person": 0}, r"row 1: person \(0\) must be at least 1"),
        ({"width": 0}, r"row 1: width \(0\) and height \(\d+\) must be > 0"),
        ({"left": 5000}, r"row 1: the crop of .* shows nothing of the frame of 640×360"),
        ({"video_version": "7"}, r"row 1: .*one\.mp4 has changed since its people were found"),
        ({"start_s": float("nan")}, r"row 1: nan s to 9 s is not a span of .*one\.mp4"),
        ({"end_s": float("nan")}, r"row 1: 0 s to nan s is not a span of .*one\.mp4"),
        ({"limit_right": 0}, r"row 1: the crop of .*, of which the columns 0 to 0 count, shows nothing of the frame"),
    ],
)
def test_a_list_that_cannot_be_labeled_is_refused(
    people_run: FinishedRun, listed: pa.Table, change: dict[str, Any], message: str
) -> None:
    rows = listed.to_pylist()
    rows[0] |= change
    catalog = read_catalog(str(people_run.out / CATALOG_FILE))
    with pytest.raises(PeopleError, match=message):
        people_of_list(pa.Table.from_pylist(rows, schema=PEOPLE_LIST), "list.parquet", catalog)


def test_a_span_may_be_without_end(people_run: FinishedRun, listed: pa.Table) -> None:
    rows = [row | {"end_s": math.inf} for row in listed.to_pylist() if row["video"].endswith("/one.mp4")]
    catalog = read_catalog(str(people_run.out / CATALOG_FILE))
    found = people_of_list(pa.Table.from_pylist(rows, schema=PEOPLE_LIST), "list.parquet", catalog).to_pylist()
    (span,) = next(row["spans"] for row in found if row["video"].endswith("/one.mp4"))
    assert span["end_us"] == 9 * MICROSECONDS
    (nobody,) = next(row["problems"] for row in found if row["video"].endswith("/two.mp4"))
    assert (nobody["error"], nobody["reason"]) == ("nobody_seen", "nobody is listed")


def test_a_video_with_a_region_is_not_one_of_a_list(people_run: FinishedRun, listed: pa.Table) -> None:
    catalog = read_catalog(str(people_run.out / CATALOG_FILE))
    rows = catalog.to_pylist()
    for row in rows:
        if row["video"].endswith("/one.mp4"):
            row |= {"region_left": 0, "region_top": 0, "region_width": 100, "region_height": 100}
    with_region = pa.Table.from_pylist(rows, schema=catalog.schema)
    with pytest.raises(
        PeopleError, match=r"row 1: the catalog gives a region of .*one\.mp4, which is labeled: leave the row"
    ):
        people_of_list(listed, "list.parquet", with_region)
    others = listed.filter([not video.endswith("/one.mp4") for video in listed["video"].to_pylist()])
    assert {Path(video).name for video in people_of_list(others, "list.parquet", with_region)["video"].to_pylist()} == {
        "two.mp4",
        "none.mp4",
    }


def test_a_list_of_an_archive_fits_one_of_its_videos(
    people_run: FinishedRun, listed: pa.Table, model: str, tmp_path: Path
) -> None:
    file = edited(listed, tmp_path / "all.parquet", lambda people: people)
    one = microaction.label_video(people_run.archive / "one.mp4", model, people=file)
    assert set(one.people["person"].to_pylist()) == {1}


@pytest.mark.slow
def test_windows_are_reused_where_they_show_the_same_person(
    people_run: FinishedRun, listed: pa.Table, model: str, tmp_path: Path
) -> None:
    """Somebody is moved in the list, and somebody is labeled for less time: the rest is reused, and all is accounted for."""

    def moved_and_shortened(people: pd.DataFrame) -> pd.DataFrame:
        is_first = (people["person"] == 1) & (people["end_s"] == CUTS_S[0])
        people = people.assign(end_s=people["end_s"].mask(is_first, 10.0))
        return people.assign(left=people["left"].mask(people["person"] == 2, people["left"] + 200))

    base = copy_of(people_run.out, tmp_path)
    label(people_run.archive, base, model, people="auto", abstain_below=0.0)
    uncertain = {"relabel": "uncertain", "base_run": str(base), "abstain_below": 0.0}
    same = label(people_run.archive, tmp_path / "same", model, people="auto", **uncertain)
    assert same.num_windows_now == 0
    file = edited(listed, tmp_path / "edited.parquet", moved_and_shortened)
    summary = label(people_run.archive, tmp_path / "new", model, people=file, **uncertain)
    new, windows = tables(tmp_path / "new"), tables(tmp_path / "new")["windows"]
    assert new["videos"]["num_windows"].sum() == len(windows)
    is_second = windows["person"] == 2
    assert 0 < is_second.sum() <= summary.num_windows_now < len(windows)
    whole = label(people_run.archive, tmp_path / "whole", model, people="off", **uncertain)
    assert whole.num_windows_now == len(tables(tmp_path / "whole")["windows"]), "people's windows show no whole frames"


def test_two_places_at_once_are_refused(people_run: FinishedRun, listed: pa.Table) -> None:
    rows = [row | {"person": 1} for row in listed.to_pylist()]  # merged, though both are seen at once
    catalog = read_catalog(str(people_run.out / CATALOG_FILE))
    with pytest.raises(PeopleError, match=r"person 1 of .*two\.mp4 has spans that overlap \(0 to 14 s, 0 to 14 s\)"):
        people_of_list(pa.Table.from_pylist(rows, schema=PEOPLE_LIST), "list.parquet", catalog)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeopleError, match="microaction people ARCHIVE OUT"):
        read_people_list(str(tmp_path / "missing.parquet"))
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(PeopleError, match="is not a Parquet file"):
        read_people_list(str(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"video": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(PeopleError, match="has no column person, start_s"):
        read_people_list(str(tmp_path / "other.parquet"))


def test_planning_tells_the_people_of_a_sample(people_run: FinishedRun, model: str, tmp_path: Path) -> None:
    plan = run.plan_labeling(settings(people_run.archive, tmp_path / "out", model, people="auto", plan=True))
    assert plan.num_people is not None
    assert 0.5 < plan.num_people < 2
    assert plan.look_core_h > 0
    assert not (tmp_path / "out").exists()
    known = run.plan_labeling(settings(people_run.archive, people_run.out, model, people="auto", plan=True))
    assert (known.num_people, known.num_todo) == (None, 0)


# What goes wrong, each over a run: who is found is planted, since what detectors miss changes with them.

TALL, SMALL = [60, 40, 200, 340], [400, 100, 425, 160]
PROBLEMS: dict[str, tuple[list[list[int]], dict[int | None, str | None]]] = {
    "small.mp4": ([TALL, SMALL], {1: None, 2: "too_small"}),
    "overlap.mp4": ([TALL, [96, 44, 236, 344]], {1: "overlap", 2: "overlap"}),
    "alone.mp4": ([[250, 60, 390, 340]], {1: None}),
    "crowd.mp4": ([[10 + 50 * number, 60, 50 + 50 * number, 200] for number in range(12)], {None: "too_many_people"}),
}


@pytest.fixture(scope="module")
def problem_run(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("problems")
    archive = folder / "archive"
    archive.mkdir()
    for name, (boxes, _) in PROBLEMS.items():
        make_scene(archive / name, subject_seeds=[9100], shots=[Shot(9.0, {})], seed=1, size=SIZE, fps=FPS)
        boxes_file(str(archive / name)).write_text(json.dumps(boxes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "Looker", ListedLooker)
        summary = label(archive, folder / "out", model, people="auto")
    return FinishedRun(archive, folder / "out", summary, [])


@pytest.mark.parametrize("name", PROBLEMS)
def test_whoever_is_not_labeled_is_told_with_the_reason(problem_run: FinishedRun, name: str) -> None:
    found = tables(problem_run.out)
    failures, windows = of_video(found["failures"], name), of_video(found["windows"], name)
    for person, error in PROBLEMS[name][1].items():
        its = failures[failures["person"].isna() if person is None else failures["person"] == person]
        assert list(its["error"]) == ([] if error is None else [error])
        if error is not None:
            (row,) = its.to_dict("records")
            assert (row["stage"], row["start_s"], row["end_s"]) == ("people", 0.0, 9.0)
            assert row["reason"]
        if person is not None:
            assert (windows["person"] == person).any() == (error is None), "labeled, or told why not"
    people = of_video(found["people"], name)
    np.testing.assert_allclose(people["covered_s"] + people["failed_s"], people["seen_s"])


def test_small_people_are_told_with_their_height(problem_run: FinishedRun) -> None:
    (row,) = of_video(tables(problem_run.out)["failures"], "small.mp4").to_dict("records")
    assert "60 pixels high" in row["reason"]
    (person,) = of_video(tables(problem_run.out)["people"], "small.mp4").query("person == 2").to_dict("records")
    assert person["spans"][0]["height_px"] == 60


def test_hidden_legs_are_told(people_run: FinishedRun) -> None:
    people = of_video(tables(people_run.out)["people"], "two.mp4").set_index("person")
    bodies = {span["shot"]: span["body"] for span in people["spans"][1]}
    assert (bodies[0], bodies[2]) == ("whole", "whole")
    assert bodies[1] in ("no legs", "head and shoulders")


def test_a_restless_camera_is_told(model: str, tmp_path: Path) -> None:
    shots = [Shot(4.0 * number, close_up(0) if number % 2 else side_by_side(0)) for number in range(1, 7)]
    make_scene(tmp_path / "archive.mp4", subject_seeds=[9102], shots=shots, seed=3, size=SIZE, fps=FPS)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive.mp4").rename(tmp_path / "archive/cuts.mp4")
    summary = label(tmp_path / "archive", tmp_path / "out", model, people="auto")
    (warning,) = summary.warnings
    assert "cuts.mp4) people are mostly shown for less than 10 s at a time" in warning
    (row,) = tables(tmp_path / "out")["videos"].to_dict("records")
    assert row["num_shots"] >= 4, "zooms to the same person, before the same wall, are cuts too"


def test_a_part_that_cannot_be_looked_at_is_told(
    people_run: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list beside the video is missing, which is an error of nobody's video, but of the part that is looked at."""
    monkeypatch.setattr(finding, "Looker", ListedLooker)
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "one.mp4").write_bytes((people_run.archive / "one.mp4").read_bytes())
    label(archive, tmp_path / "out", model, people="auto")
    (row,) = tables(tmp_path / "out")["failures"].to_dict("records")
    assert (row["stage"], row["error"], row["start_s"], row["end_s"]) == ("people", "unexpected", 0.0, 9.0)
    assert CATALOG_FILE in {file.name for file in (tmp_path / "out").iterdir()}


def test_a_missing_detector_ends_a_run_before_anything_is_done(
    people_run: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks.check_detector.cache_clear()
    monkeypatch.setattr(detector, "WEIGHTS_FILE", "people/missing.onnx")
    with pytest.raises(DetectorError, match=r"missing\.onnx is missing, the weights of the person detector: install"):
        label(people_run.archive, tmp_path / "out", model, people="auto")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DetectorError):
        microaction.label_video(people_run.archive / "one.mp4", model)


def test_nodes_without_the_detector_end_a_run(
    people_run: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "Looker", LookerWithoutDetector)
    with pytest.raises(DetectorError, match="not here"):
        label(people_run.archive, tmp_path / "out", model, people="auto")
    assert LOOKS.read_index(str(tmp_path / "out")).num_rows == 0
