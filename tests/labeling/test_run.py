"""Whole labeling runs on a local Ray."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from microaction.labeling import pipeline, plan, run
from microaction.labeling.catalog import CatalogError, make_catalog, write_catalog
from microaction.labeling.record import RunError
from microaction.labeling.run import Progress, run_labeling
from microaction.models import CheckpointError, Inputs, load_checkpoint
from microaction.models.normalize import normalize_frames
from microaction.registry import promote, register
from microaction.schema import CATALOG, CLIPS_FILE, REGION_COLUMNS, TRAINING_CLIPS, parquet_bytes
from microaction.storage.lease import LeaseHeldError, hold_lease
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video import decode_frames, segment_indices
from microaction.video.transforms import center_crop
from tests.archives import BAD, GOOD, write_model
from tests.labeling.decoders import LocatingDecoder
from tests.labeling.runs import FinishedRun, assert_same_tables, copy_of, finished_run, label, settings, tables
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def baseline(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finished_run(tmp_path_factory.mktemp("baseline"), model)


@pytest.fixture(scope="module")
def short_chunks(baseline: FinishedRun, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over the same archive in chunks of 1 s."""
    out = tmp_path_factory.mktemp("short-chunks") / "out"
    label(baseline.archive, out, model, chunk_s=1.0)
    return out


def test_every_second_is_labeled_or_accounted_for(baseline: FinishedRun) -> None:
    found, archive = tables(baseline.out), baseline.archive
    assert len(found["videos"]) == len(GOOD) + len(BAD)
    failures = {Path(row["video"]).name: row for row in found["failures"].to_dict("records")}
    assert {name: row["reason"] for name, row in failures.items()} == BAD
    assert {(row["stage"], row["error"]) for row in failures.values()} == {("catalog", "decode_error")}
    for name, seconds in GOOD.items():
        windows = found["windows"][found["windows"]["video"] == str(archive / name)]
        covered = sorted(zip(windows["start_s"], windows["end_s"], strict=True))
        assert covered[0][0] == 0
        assert max(end for _, end in covered) == pytest.approx(seconds, abs=0.002)
        assert all(later[0] <= before[1] for before, later in pairwise(covered))
        video = found["videos"].set_index("video").loc[str(archive / name)]
        assert video["covered_s"] == video["duration_s"] == pytest.approx(seconds, abs=0.002)
        assert video["num_windows"] == len(windows)
    assert baseline.summary.publication.num_windows == len(found["windows"])
    assert baseline.progress[-1].stage == "publish"
    assert max(progress.video_s for progress in baseline.progress) == pytest.approx(sum(GOOD.values()), abs=0.01)


def test_rows_agree_with_the_model_and_each_other(baseline: FinishedRun, model: str) -> None:
    found = tables(baseline.out)
    checkpoint = load_checkpoint(model)
    first = found["windows"][found["windows"]["video"] == str(baseline.archive / "a.mp4")].iloc[2]
    assert (first["start_s"], first["end_s"]) == (2.0, 4.0)
    indices = (segment_indices(60) + 60).tolist()
    frames = center_crop(decode_frames(baseline.archive / "a.mp4", indices, 48), 40)
    np.testing.assert_allclose(first["probabilities"], probabilities_of(model, frames), atol=1e-5)
    for row in found["windows"].to_dict("records"):
        assert row["action_id"] == np.argmax(row["probabilities"])
        assert row["probability"] == max(row["probabilities"])
        assert row["action"] == ACTIONS[row["action_id"]]
        assert row["body_part_id"] == BODY_PART_OF[row["action_id"]]
        assert row["body_part"] == BODY_PARTS[row["body_part_id"]]
        assert row["model_digest"] == checkpoint.digest
        assert row["decoder"].startswith("av ")
        np.testing.assert_allclose(
            row["body_part_probabilities"],
            [sum(np.compress(np.array(BODY_PART_OF) == part, row["probabilities"])) for part in range(len(BODY_PARTS))],
            atol=1e-6,
        )
    for video in found["videos"].to_dict("records"):
        events = found["events"][found["events"]["video"] == video["video"]]
        assert video["num_events"] == len(events) == sum(each["num_events"] for each in video["actions"])
        assert len(events) == sum(each["num_events"] for each in video["body_parts"])
        for each in video["actions"]:
            of_action = events[events["action"] == each["action"]]
            assert each["total_s"] == pytest.approx((of_action["end_s"] - of_action["start_s"]).sum())
            assert each["events_per_minute"] == pytest.approx(len(of_action) / video["covered_s"] * 60)
        assert all(each["total_s"] <= video["covered_s"] + 1e-6 for each in video["body_parts"])
    assert len(found["events"]) > 0, "a threshold that finds no events would hide errors"
    assert len(found["windows"]["action"].unique()) > 1, (
        "a model that always predicts the same action would hide errors"
    )


def probabilities_of(model: str, frames_THWC: np.ndarray) -> np.ndarray:
    """Return what the network as written computes for one window."""
    checkpoint = load_checkpoint(model)
    frames_BTHWC = torch.from_numpy(frames_THWC.copy())[None]
    with torch.inference_mode():
        outputs = checkpoint.model(Inputs(normalize_frames(frames_BTHWC, checkpoint.config.preprocessing)))
    probabilities_K: np.ndarray = outputs.logits.softmax(1)[0].numpy()
    return probabilities_K


def test_chunk_length_does_not_change_the_tables(
    baseline: FinishedRun, short_chunks: Path, model: str, tmp_path: Path
) -> None:
    assert_same_tables(tables(baseline.out), tables(short_chunks), ignoring=("settings_digest",))
    for name, changes in {"whole": {}, "cut": {"chunk_s": 2.3}}.items():
        label(baseline.archive, tmp_path / name, model, precision="bf16", **changes)
    assert_same_tables(tables(tmp_path / "whole"), tables(tmp_path / "cut"), ignoring=("settings_digest",))


def test_a_second_run_labels_only_what_is_new(archive: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = label(archive, out, model)
    assert (first.num_chunks, first.num_committed_before) == (3, 0)
    before = tables(out)
    assert label(archive, out, model).num_chunks == 0
    assert_same_tables(before, tables(out))

    shutil.copy(archive / "a.mp4", archive / "new.mp4")
    grown = label(archive, out, model)
    assert (grown.num_chunks, grown.num_committed_before) == (1, 3)
    (archive / "new.mp4").unlink()
    write_video(archive / "b.avi", num_frames=30, options={"bf": "0"})  # the same name, another content
    changed = label(archive, out, model)
    assert (changed.num_chunks, changed.publication.num_videos) == (1, 7)
    assert tables(out)["videos"].set_index("video").loc[str(archive / "b.avi")]["duration_s"] == pytest.approx(1.0)


def test_new_thresholds_publish_again_without_labeling(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    out = copy_of(baseline.out, tmp_path)
    before = tables(out)
    middle = float(before["windows"]["probability"].median())
    again = label(baseline.archive, out, model, abstain_below=middle, start_threshold=middle, continue_threshold=0.0)
    assert again.num_chunks == 0
    after = tables(out)
    assert (after["windows"]["abstained"] == (after["windows"]["probability"] < np.float32(middle))).all()
    assert again.publication.num_abstained == after["windows"]["abstained"].sum() == len(after["windows"]) // 2
    assert after["events"]["start_s"].min() == 0
    assert len(after["events"]) != len(before["events"])


def test_an_interrupted_run_continues_where_it_stopped(
    baseline: FinishedRun, short_chunks: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop_early(progress: Progress) -> None:
        if progress.num_windows:
            raise KeyboardInterrupt

    # A block per chunk, so that there is a moment between two commits.
    monkeypatch.setattr(run, "plan_blocks", lambda chunks, stride_us: [range(i, i + 1) for i in range(len(chunks))])
    with pytest.raises(KeyboardInterrupt):
        run_labeling(settings(baseline.archive, out, model, chunk_s=1.0), on_progress=stop_early)
    resumed = label(baseline.archive, out, model, chunk_s=1.0)
    assert resumed.num_committed_before >= 1
    assert_same_tables(tables(short_chunks), tables(out))


@pytest.mark.slow
def test_several_waves_give_the_same_tables(
    baseline: FinishedRun, short_chunks: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_MAX_CHUNKS", 2)
    monkeypatch.setattr(run, "BLOCKS_PER_WAVE", 2)
    label(baseline.archive, tmp_path / "out", model, chunk_s=1.0)
    assert_same_tables(tables(short_chunks), tables(tmp_path / "out"))


def test_an_output_of_another_run_is_refused(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    out = copy_of(baseline.out, tmp_path)
    with pytest.raises(RunError, match=r"holds another run \(stride_s: recorded 1.0, now 0.5\)"):
        label(baseline.archive, out, model, stride_s=0.5)
    with pytest.raises(
        RunError, match=r"precision: recorded 'fp32', now 'bf16'; is_compiled: recorded False, now True"
    ):
        label(baseline.archive, out, model, precision="bf16", compile="yes")
    assert label(baseline.archive, out, model, precision="auto").num_chunks == 0, "the recorded precision is kept"


def test_a_run_uses_the_model_in_production_at_its_start(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    registry, trained = str(tmp_path / "models"), tmp_path / "trained"
    shutil.copytree(model, trained)
    (trained / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    first = register(registry, str(trained))
    promote(registry, first.name, reason="the only one")
    label(baseline.archive, tmp_path / "out", f"{registry}@production")
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["model"] == {"requested": f"{registry}@production", "pinned": f"{registry}@{first.name}"}
    assert record["settings"]["model"] == f"{registry}/{first.name}"
    assert record["identity"]["model_digest"] == first.digest
    assert_same_tables(tables(baseline.out), tables(tmp_path / "out"), ignoring=("model",))


def test_a_checkpoint_that_changes_during_a_run_is_refused(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    changing = Path(shutil.copytree(model, tmp_path / "model"))

    def change(progress: Progress) -> None:
        if progress.stage == "label":
            write_model(changing, gain=30)

    with pytest.raises(CheckpointError, match=r"model has changed: its digest was \w+ and is \w+ now; restore it"):
        run_labeling(settings(baseline.archive, tmp_path / "out", str(changing)), on_progress=change)
    assert not (tmp_path / "out/windows").exists()


def test_an_output_is_refused_while_another_run_holds_it(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    out = copy_of(baseline.out, tmp_path)
    with (
        hold_lease(str(out / "_lease"), lifetime_s=1.0),
        pytest.raises(LeaseHeldError, match=r"is running in .*/out:"),
    ):
        label(baseline.archive, out, model)
    assert label(baseline.archive, out, model).num_committed_before == 3


def test_an_output_of_an_earlier_format_is_refused(baseline: FinishedRun, model: str, tmp_path: Path) -> None:
    out = copy_of(baseline.out, tmp_path)
    record = json.loads((out / "_run.json").read_text())
    record["identity"]["format"] = 5
    (out / "_run.json").write_text(json.dumps(record))
    expected = (
        r"out was written by another version of microaction \(format 5, this version has 7\): choose another folder"
    )
    with pytest.raises(RunError, match=expected):
        label(baseline.archive, out, model)
    with pytest.raises(RunError, match=expected):
        label(baseline.archive, tmp_path / "new", model, relabel="uncertain", base_run=str(out))


def test_the_model_sees_only_the_region_of_the_catalog(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("inside.mp4", "outside.mp4"):
        write_video(archive / name, num_frames=60, size=(160, 120))
    rows = [
        row | dict(zip(REGION_COLUMNS, (left, 0, 48, 48), strict=True))
        for row, left in zip(make_catalog(str(archive)).to_pylist(), (0, 150), strict=True)
    ]
    catalog = str(tmp_path / "catalog.parquet")
    write_catalog(pa.Table.from_pylist(rows, schema=CATALOG), catalog)
    label(archive, tmp_path / "out", model, catalog=catalog)
    found = tables(tmp_path / "out")
    (failure,) = found["failures"].to_dict("records")
    assert (failure["video"], failure["error"]) == (str(archive / "outside.mp4"), "invalid_region")
    assert failure["reason"].startswith(
        "region of 48×48 pixels at (150, 0) does not lie inside the frame of 160×120; corr"
    )
    corner = decode_frames(archive / "inside.mp4", segment_indices(60).tolist())[:, 4:44, 4:44]
    (probabilities_K,) = found["windows"]["probabilities"]
    np.testing.assert_allclose(probabilities_K, probabilities_of(model, corner), atol=1e-5)


def test_decoding_runs_in_tasks_and_not_in_the_actors(
    baseline: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data would fuse the stages if it could: chunks would be decoded one by one where only the model should run."""
    monkeypatch.setattr(pipeline, "Decoder", LocatingDecoder)
    label(baseline.archive, tmp_path / "out", model)
    assert tables(tmp_path / "out")["windows"]["decoder"].unique().tolist() == ["in a task"]


def test_real_clips_of_four_sizes_are_labeled_whole(shared: Path, model: str, tmp_path: Path) -> None:
    summary = label(shared / "data/clips", tmp_path / "out", model)
    found = tables(tmp_path / "out")
    assert len(found["failures"]) == 0
    durations = {"arm_wrestling.mp4": 10.0, "ntu_sample.avi": 2.4, "structuralize.mp4": 10.01, "test.mp4": 10.0}
    rows = {Path(row["video"]).name: row for row in found["videos"].to_dict("records")}
    assert {name: row["covered_s"] for name, row in rows.items()} == pytest.approx(durations)
    assert summary.publication.num_windows == 9 + 2 + 10 + 9


def test_an_archive_without_videos_is_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CatalogError, match=r"no videos below .*: it holds 1 file that is no video \(\.txt 1\)$"):
        label(tmp_path, tmp_path / "out", model)
    with pytest.raises(CatalogError, match="no files below"):
        label(tmp_path / "absent", tmp_path / "out", model)


def test_the_run_is_recorded(baseline: FinishedRun, model: str) -> None:
    record = json.loads((baseline.out / "_run.json").read_text())
    assert record["settings"]["window_s"] == 2.0
    assert record["identity"]["model_digest"] == load_checkpoint(model).digest
    assert record["model"] == {"requested": model, "pinned": model}
    assert record["summary"]["publication"]["num_windows"] == baseline.summary.publication.num_windows
