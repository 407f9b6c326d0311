"""Whole labelling runs on a local Ray."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from microaction.labeling import pipeline, run
from microaction.labeling.catalog import CatalogError, make_catalog, write_catalog
from microaction.labeling.record import RunError
from microaction.labeling.run import Progress, run_labeling
from microaction.models import load_checkpoint
from microaction.models.normalize import normalize_frames
from microaction.registry import promote, register
from microaction.schema import CATALOG, CLIPS_FILE, REGION_COLUMNS, TRAINING_CLIPS, parquet_bytes
from microaction.storage.lease import LeaseHeldError, hold_lease
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video import decode_frames, segment_indices
from microaction.video.transforms import center_crop
from tests.archives import BAD, GOOD
from tests.labeling.decoders import TellingDecoder
from tests.labeling.runs import assert_same_tables, label, settings, tables
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_every_second_of_every_file_is_labelled_or_accounted_for(archive: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[Progress] = []
    summary = run_labeling(settings(archive, out, model), on_progress=seen.append)
    found = tables(out)

    assert len(found["videos"]) == len(GOOD) + len(BAD)
    failures = {Path(row["video"]).name: row for row in found["failures"].to_dict("records")}
    assert {name: row["reason"] for name, row in failures.items()} == BAD
    assert {row["stage"] for row in failures.values()} == {"catalog"}
    for name, seconds in GOOD.items():
        windows = found["windows"][found["windows"]["video"] == str(archive / name)]
        covered = sorted(zip(windows["start_s"], windows["end_s"], strict=True))
        assert covered[0][0] == 0
        assert max(end for _, end in covered) == pytest.approx(seconds, abs=0.002)
        assert all(later[0] <= before[1] for before, later in pairwise(covered))
        video = found["videos"].set_index("video").loc[str(archive / name)]
        assert video["covered_s"] == video["duration_s"] == pytest.approx(seconds, abs=0.002)
        assert video["num_windows"] == len(windows)
    assert summary.publication.num_windows == len(found["windows"])
    assert seen[-1].stage == "publish"
    assert max(progress.video_s for progress in seen) == pytest.approx(sum(GOOD.values()), abs=0.01)


def test_rows_agree_with_the_model_and_with_themselves(archive: Path, model: str, tmp_path: Path) -> None:
    label(archive, tmp_path / "out", model)
    found = tables(tmp_path / "out")
    checkpoint = load_checkpoint(model)
    first = found["windows"][found["windows"]["video"] == str(archive / "a.mp4")].iloc[2]
    assert (first["start_s"], first["end_s"]) == (2.0, 4.0)
    indices = (segment_indices(60) + 60).tolist()
    frames = center_crop(decode_frames(archive / "a.mp4", indices, 48), 40)
    with torch.inference_mode():
        logits, _ = checkpoint.model(
            normalize_frames(torch.from_numpy(frames.copy())[None], checkpoint.config.preprocessing)
        )
    np.testing.assert_allclose(first["probabilities"], logits.softmax(1)[0].numpy(), atol=1e-5)
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
    assert len(found["windows"]["action"].unique()) > 1, "a model that always says the same would hide errors"


@pytest.mark.parametrize(("chunk_s", "precision"), [(1.0, "fp32"), (2.3, "bf16")])
def test_chunks_of_any_length_give_the_same_tables(
    archive: Path, model: str, tmp_path: Path, chunk_s: float, precision: str
) -> None:
    label(archive, tmp_path / "whole", model, precision=precision)
    label(archive, tmp_path / "cut", model, precision=precision, chunk_s=chunk_s)
    assert_same_tables(tables(tmp_path / "whole"), tables(tmp_path / "cut"), but=("settings_digest",))


def test_the_same_command_again_only_does_what_is_new(archive: Path, model: str, tmp_path: Path) -> None:
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


def test_other_thresholds_publish_anew_and_label_nothing(archive: Path, model: str, tmp_path: Path) -> None:
    label(archive, tmp_path / "out", model)
    before = tables(tmp_path / "out")
    middle = float(before["windows"]["probability"].median())
    again = label(
        archive, tmp_path / "out", model, abstain_below=middle, start_threshold=middle, continue_threshold=0.0
    )
    assert again.num_chunks == 0
    after = tables(tmp_path / "out")
    assert (after["windows"]["abstained"] == (after["windows"]["probability"] < np.float32(middle))).all()
    assert again.publication.num_abstained == after["windows"]["abstained"].sum() == len(after["windows"]) // 2
    assert after["events"]["start_s"].min() == 0
    assert len(after["events"]) != len(before["events"])


def test_an_interrupted_run_goes_on_where_it_stopped(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(archive, tmp_path / "undisturbed", model, chunk_s=1.0)
    out = tmp_path / "out"

    def stop_early(progress: Progress) -> None:
        if progress.num_windows:
            raise KeyboardInterrupt

    # A block for each chunk, so that there is something to be interrupted between.
    monkeypatch.setattr(run, "plan_blocks", lambda chunks: [range(i, i + 1) for i in range(len(chunks))])
    with pytest.raises(KeyboardInterrupt):
        run_labeling(settings(archive, out, model, chunk_s=1.0), on_progress=stop_early)
    resumed = label(archive, out, model, chunk_s=1.0)
    assert resumed.num_committed_before >= 1
    assert_same_tables(tables(tmp_path / "undisturbed"), tables(out))


def test_an_output_of_another_run_is_refused_with_the_difference(archive: Path, model: str, tmp_path: Path) -> None:
    label(archive, tmp_path / "out", model)
    with pytest.raises(RunError, match=r"holds another run \(stride_s: there 1.0, now 0.5\)"):
        label(archive, tmp_path / "out", model, stride_s=0.5)
    with pytest.raises(RunError, match=r"precision: there 'fp32', now 'bf16'; is_compiled: there False, now True"):
        label(archive, tmp_path / "out", model, precision="bf16", compile="yes")
    assert label(archive, tmp_path / "out", model, precision="auto").num_chunks == 0, "what was decided stays"


def test_what_is_in_production_at_the_start_is_what_labels(archive: Path, model: str, tmp_path: Path) -> None:
    registry, trained = str(tmp_path / "models"), tmp_path / "trained"
    shutil.copytree(model, trained)
    (trained / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    first = register(registry, str(trained))
    promote(registry, first.name, reason="the only one")
    label(archive, tmp_path / "out", f"{registry}@production")
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["settings"]["model"] == f"{registry}/{first.name}"
    assert record["identity"]["model_digest"] == first.digest
    label(archive, tmp_path / "plain", model)
    assert_same_tables(tables(tmp_path / "out"), tables(tmp_path / "plain"), but=("model",))


def test_a_second_run_on_an_output_is_refused_while_the_first_lives(archive: Path, model: str, tmp_path: Path) -> None:
    with (
        hold_lease(str(tmp_path / "out/_lease"), lifetime_s=1.0),
        pytest.raises(LeaseHeldError, match=r"is running in .*/out:"),
    ):
        label(archive, tmp_path / "out", model)
    assert label(archive, tmp_path / "out", model).num_chunks == 3


def test_a_region_of_the_catalog_is_what_the_model_sees(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    write_video(archive / "v.mp4", num_frames=60, size=(160, 120))
    (row,) = make_catalog(str(archive)).to_pylist()
    for name, left in {"catalog": 0, "outside": 150}.items():
        region = dict(zip(REGION_COLUMNS, (left, 0, 48, 48), strict=True))
        write_catalog(pa.Table.from_pylist([row | region], schema=CATALOG), str(tmp_path / f"{name}.parquet"))
    label(archive, tmp_path / "out", model, catalog=str(tmp_path / "catalog.parquet"))
    label(archive, tmp_path / "outside", model, catalog=str(tmp_path / "outside.parquet"))
    (failure,) = tables(tmp_path / "outside")["failures"].to_dict("records")
    assert failure["reason"].startswith(
        "region of 48×48 pixels at (150, 0) does not lie inside the frame of 160×120; corr"
    )
    checkpoint = load_checkpoint(model)
    corner = decode_frames(archive / "v.mp4", segment_indices(60).tolist())[:, 4:44, 4:44]
    with torch.inference_mode():
        logits, _ = checkpoint.model(
            normalize_frames(torch.from_numpy(corner.copy())[None], checkpoint.config.preprocessing)
        )
    (found,) = tables(tmp_path / "out")["windows"]["probabilities"]
    np.testing.assert_allclose(found, logits.softmax(1)[0].numpy(), atol=1e-5)


def test_decoding_runs_in_tasks_and_not_in_the_actors(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data would fuse the stages if it could: chunks would be decoded one by one where only the model should run."""
    monkeypatch.setattr(pipeline, "Decoder", TellingDecoder)
    label(archive, tmp_path / "out", model)
    assert tables(tmp_path / "out")["windows"]["decoder"].unique().tolist() == ["in a task"]


def test_real_clips_of_four_sizes_and_two_containers(shared: Path, model: str, tmp_path: Path) -> None:
    summary = label(shared / "data/clips", tmp_path / "out", model)
    found = tables(tmp_path / "out")
    assert len(found["failures"]) == 0
    durations = {"arm_wrestling.mp4": 10.0, "ntu_sample.avi": 2.4, "structuralize.mp4": 10.01, "test.mp4": 10.0}
    rows = {Path(row["video"]).name: row for row in found["videos"].to_dict("records")}
    assert {name: row["covered_s"] for name, row in rows.items()} == pytest.approx(durations)
    assert summary.publication.num_windows == 9 + 2 + 10 + 9


def test_an_archive_without_videos_is_an_error_that_says_so(model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CatalogError, match=r"no videos below .*: none of its files ends in \.mp4"):
        label(tmp_path, tmp_path / "out", model)
    with pytest.raises(CatalogError, match="no files below"):
        label(tmp_path / "absent", tmp_path / "out", model)


def test_the_run_is_on_record(archive: Path, model: str, tmp_path: Path) -> None:
    summary = label(archive, tmp_path / "out", model)
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["settings"]["window_s"] == 2.0
    assert record["identity"]["model_digest"] == load_checkpoint(model).digest
    assert record["summary"]["publication"]["num_windows"] == summary.publication.num_windows
