"""Whole labelling runs on a local Ray."""

import json
import random
import shutil
import time
import urllib.request
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import torch

from microaction.config import LabelSettings, Preprocessing
from microaction.labeling import pipeline, run
from microaction.labeling.catalog import CatalogError, make_catalog, write_catalog
from microaction.labeling.decoder import Decoder
from microaction.labeling.record import RunError
from microaction.labeling.run import Progress, RunSummary, run_labeling
from microaction.lease import LeaseHeldError, held
from microaction.model import load_checkpoint
from microaction.model.normalize import normalize_frames
from microaction.registry import promote, register
from microaction.schema import CATALOG, CLIPS_FILE, REGION_COLUMNS, TRAINING_CLIPS, parquet_bytes
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.video import decode_frames, segment_indices
from microaction.video.sandbox import Limits
from microaction.video.transforms import center_crop
from microaction.video.windows import Span
from tests.archives import BAD, GOOD, write_model
from tests.labeling.decoders import MisbehavingDecoder, PoisonedDecoder, TellingDecoder
from tests.video import matrix
from tests.video.damage import damaged
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]
TABLES = ("windows", "events", "videos", "failures")


def settings(archive: Path, out: Path, model: str, **changes: object) -> LabelSettings:
    fields = {"archive": str(archive), "out": str(out), "model": model, "min_probability": 0.1, "precision": "fp32"}
    return LabelSettings.model_validate(fields | changes)


def label(archive: Path, out: Path, model: str, **changes: object) -> RunSummary:
    return run_labeling(settings(archive, out, model, **changes))


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """The published tables, videos by the end of their name, in an order of their own."""
    frames = {name: pd.read_parquet(out / name) for name in TABLES}
    for name, frame in frames.items():
        frame["video"] = frame["video"].astype(str)
        order = [column for column in ("video", "start_s", "action_id") if column in frame]
        frames[name] = frame.sort_values(order).reset_index(drop=True)
    return frames


def assert_same_tables(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame], *, but: tuple[str, ...] = ()) -> None:
    """Equal to the last bit."""
    for name in TABLES:
        left, right = (t[name].drop(columns=[c for c in but if c in t[name]]) for t in (a, b))
        for column in ("probabilities", "body_part_probabilities"):
            if column in left:
                np.testing.assert_array_equal(np.stack(list(left.pop(column))), np.stack(list(right.pop(column))))
        pd.testing.assert_frame_equal(left, right, check_exact=True, check_categorical=False)


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
        assert all(later[0] <= earlier[1] for earlier, later in pairwise(covered))
        video = found["videos"].set_index("video").loc[str(archive / name)]
        assert video["covered_s"] == video["duration_s"] == pytest.approx(seconds, abs=0.002)
        assert video["num_windows"] == len(windows)
    assert summary.published.num_windows == len(found["windows"])
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
    assert (changed.num_chunks, changed.published.num_videos) == (1, 7)
    assert tables(out)["videos"].set_index("video").loc[str(archive / "b.avi")]["duration_s"] == pytest.approx(1.0)


def test_other_thresholds_publish_anew_and_label_nothing(archive: Path, model: str, tmp_path: Path) -> None:
    label(archive, tmp_path / "out", model)
    before = tables(tmp_path / "out")
    middle = float(before["windows"]["probability"].median())
    again = label(archive, tmp_path / "out", model, abstain_below=middle, min_probability=middle, keep_probability=0.0)
    assert again.num_chunks == 0
    after = tables(tmp_path / "out")
    assert (after["windows"]["abstained"] == (after["windows"]["probability"] < np.float32(middle))).all()
    assert again.published.num_abstained == after["windows"]["abstained"].sum() == len(after["windows"]) // 2
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
        held(str(tmp_path / "out/_lease"), lifetime_s=1.0),
        pytest.raises(LeaseHeldError, match=r"is at work in .*/out;"),
    ):
        label(archive, tmp_path / "out", model)
    assert label(archive, tmp_path / "out", model).num_chunks == 3


def test_a_video_that_kills_its_worker_costs_only_itself(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(archive / "a.mp4", archive / "poison.mp4")
    monkeypatch.setattr(pipeline, "Decoder", PoisonedDecoder)
    summary = label(archive, tmp_path / "out", model)
    found = tables(tmp_path / "out")
    row = found["failures"].set_index("video").loc[str(archive / "poison.mp4")].to_dict()
    assert (row["stage"], row["error"], row["start_s"], row["end_s"]) == ("decode", "WorkerDied", 0.0, 6.6)
    assert set(found["windows"]["video"]) == {str(archive / name) for name in GOOD}
    assert summary.published.failed_s == pytest.approx(6.6)

    monkeypatch.undo()  # the poison is mended
    assert label(archive, tmp_path / "out", model).num_chunks == 0, "a failure is not tried again by itself"
    retried = label(archive, tmp_path / "out", model, retry_failed=True)
    assert (retried.num_chunks, retried.published.failed_s) == (1, 0.0)


def test_damage_in_the_middle_costs_the_seconds_that_it_costs(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    path = archive / "cut.mp4"
    write_video(path, num_frames=195, options={"g": "30"}, faststart=True)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size - 1500])
    summary = label(archive, tmp_path / "out", model, chunk_s=2.0)
    assert 0 < summary.published.covered_s < 6.5
    assert summary.published.covered_s + summary.published.failed_s == pytest.approx(6.5)
    failures = tables(tmp_path / "out")["failures"]
    assert failures["stage"].unique().tolist() == ["decode"]
    assert failures["end_s"].max() == 6.5


def test_whatever_a_decoder_does_costs_its_own_chunk_alone(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless loop that holds the GIL, SIGSEGV, SIGKILL, an exit, all memory eaten; each between good videos."""
    archive = tmp_path / "archive"
    archive.mkdir()
    write_video(archive / "a-good.mp4", num_frames=75)
    reasons = {
        "hang.mp4": ("DecoderStoppedError", "decoding it did not end within 5 s and was stopped"),
        "crash.mp4": ("DecoderDiedError", "decoding it killed its process (SIGSEGV)"),
        "killed.mp4": ("DecoderDiedError", "decoding it killed its process (SIGKILL)"),
        "leave.mp4": ("DecoderDiedError", "decoding it ended its process (exit code 7)"),
        "hungry.mp4": ("DecoderDiedError", "decoding it takes more than the 0.5 GiB of memory that it may"),
    }
    for name in (*reasons, "b-good.mp4", "z-good.mp4"):
        shutil.copy(archive / "a-good.mp4", archive / name)
    monkeypatch.setattr(pipeline, "Decoder", MisbehavingDecoder)
    started = time.monotonic()
    label(archive, tmp_path / "out", model, decode_timeout_s=5.0, decode_memory_gib=0.5)
    assert time.monotonic() - started < 60
    found = tables(tmp_path / "out")
    failures = {Path(row["video"]).name: (row["error"], row["reason"]) for row in found["failures"].to_dict("records")}
    assert failures == reasons
    assert {(row["stage"], row["start_s"], row["end_s"]) for row in found["failures"].to_dict("records")} == {
        ("decode", 0.0, 2.5)
    }
    labelled = found["videos"].set_index("video")["covered_s"]
    good = ("a-good.mp4", "b-good.mp4", "z-good.mp4")
    assert {Path(str(video)).name: seconds for video, seconds in labelled.items() if seconds} == dict.fromkeys(
        good, 2.5
    )


def test_short_chunks_have_less_time_to_decode_and_never_too_little() -> None:
    decoder = Decoder(2_000_000, 1_000_000, 8, Preprocessing(), Limits(600.0), chunk_us=120_000_000, keeper=None)
    for length_s, time_s in ((120, 600.0), (60, 300.0), (3, 30.0)):
        assert decoder._limits_of(Span(0, length_s * 1_000_000)).time_s == time_s
    hasty = replace(decoder, limits=Limits(5.0))
    assert hasty._limits_of(Span(0, 3_000_000)).time_s == 5.0


def test_a_damaged_video_gives_its_right_windows_and_an_error_for_the_rest(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    path = archive / "v.mp4"
    write_video(path, num_frames=180, options={"g": "30", "keyint_min": "30", "sc_threshold": "0"})
    label(archive, tmp_path / "whole", model)
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
    assert hit.pts is not None
    assert hit.pts * hit.time_base == 2
    assert hit.pos is not None
    data = bytearray(path.read_bytes())
    data[hit.pos + 8 : hit.pos + hit.size] = bytes(hit.size - 8)
    path.write_bytes(data)
    label(archive, tmp_path / "damaged", model)
    whole, damaged = (tables(tmp_path / name) for name in ("whole", "damaged"))
    # Frames 60 to 89 are gone: windows that hold one of them are, the others are as they were.
    kept = whole["windows"][(whole["windows"]["end_s"] <= 2.0) | (whole["windows"]["start_s"] >= 3.0)]
    assert damaged["windows"]["start_s"].tolist() == kept["start_s"].tolist() == [0.0, 3.0, 4.0]
    np.testing.assert_allclose(
        np.stack(list(damaged["windows"]["probabilities"])), np.stack(list(kept["probabilities"]))
    )
    (failure,) = damaged["failures"].to_dict("records")
    assert (failure["start_s"], failure["end_s"], failure["stage"]) == (2.0, 3.0, "decode")
    assert "damaged" in failure["reason"]


def test_an_archive_of_damaged_videos_is_labelled_as_far_as_it_goes(model: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for coding, suffix in (("h264-b-pyramid", ".mp4"), ("h264-b-pyramid", ".ts"), ("vp9", ".mkv"), ("mjpeg", ".avi")):
        matrix.write(tmp_path / f"v{suffix}", coding, "constant")
        data = (tmp_path / f"v{suffix}").read_bytes()
        for number in range(8):
            (archive / f"{coding}{number}{suffix}").write_bytes(damaged(data, random.Random(number)))
    label(archive, tmp_path / "out", model, window_s=0.4, stride_s=0.2, chunk_s=0.7)
    found = tables(tmp_path / "out")
    videos = found["videos"]
    assert len(videos) == 32
    readable = videos[videos["duration_s"].notna()]
    np.testing.assert_allclose(readable["covered_s"] + readable["failed_s"], readable["duration_s"], atol=1e-5)
    assert 0 < readable["failed_s"].sum() < readable["duration_s"].sum()
    assert set(videos["video"]) - set(readable["video"]) <= set(found["failures"]["video"])
    assert (found["failures"]["error"] == "DecodeError").all(), "known damage only, nothing unexpected"


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
    assert summary.published.num_windows == 9 + 2 + 10 + 9


def test_an_archive_without_videos_is_an_error_that_says_so(model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CatalogError, match=r"no videos below .*: none of its files ends in \.mp4"):
        label(tmp_path, tmp_path / "out", model)
    with pytest.raises(CatalogError, match="no files below"):
        label(tmp_path / "absent", tmp_path / "out", model)


def test_prometheus_learns_of_the_work(archive: Path, model: str, tmp_path: Path) -> None:
    shutil.copy(archive / "a.mp4", archive / "broken.mp4")
    data = bytearray((archive / "broken.mp4").read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (archive / "broken.mp4").write_bytes(data)
    names = (
        *("windows_total", "chunks_total", "frames_total", "video_seconds_total", "read_bytes_total"),
        "failed_chunks_total",
    )

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics") as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
        return {
            name: sum(
                float(value) for metric, _, value in lines if metric.startswith(f"ray_microaction_label_{name}{{")
            )
            for name in (*names, "busy_share", "remaining_video_seconds")
        }

    before = read()
    summary = label(archive, tmp_path / "out", model)
    deadline_s = time.monotonic() + 60
    # Labelers and the driver report to the endpoint each at its own time.
    while (after := read())["remaining_video_seconds"] or (
        after["windows_total"] - before["windows_total"] < summary.published.num_windows
    ):
        assert time.monotonic() < deadline_s, f"{before} {after}"
        time.sleep(0.5)
    gained = {name: after[name] - before[name] for name in names}
    assert gained["windows_total"] == summary.published.num_windows
    assert gained["video_seconds_total"] == pytest.approx(summary.published.video_s, abs=0.01)
    assert gained["chunks_total"] == summary.num_chunks
    assert gained["failed_chunks_total"] == 1
    readable = [archive / name for name in (*GOOD, "broken.mp4")]
    assert 0 < gained["read_bytes_total"] <= 2 * sum(path.stat().st_size for path in readable)
    assert gained["frames_total"] > gained["windows_total"]
    assert after["busy_share"] > 0


def test_the_run_is_on_record(archive: Path, model: str, tmp_path: Path) -> None:
    summary = label(archive, tmp_path / "out", model)
    record = json.loads((tmp_path / "out/_run.json").read_text())
    assert record["settings"]["window_s"] == 2.0
    assert record["identity"]["model_digest"] == load_checkpoint(model).digest
    assert record["summary"]["published"]["num_windows"] == summary.published.num_windows


def by_window(frame: pd.DataFrame) -> dict[tuple[str, float], tuple[str, str, list[float]]]:
    """(file, start): (model, its digest, probabilities)"""
    rows = zip(
        frame["video"], frame["start_s"], frame["model"], frame["model_digest"], frame["probabilities"], strict=True
    )
    return {(Path(video).name, start): (model, digest, list(values)) for video, start, model, digest, values in rows}


def test_only_what_an_earlier_run_was_unsure_of_is_labelled_again(archive: Path, model: str, tmp_path: Path) -> None:
    surer = write_model(tmp_path / "surer", gain=30)
    label(archive, tmp_path / "old", model, abstain_below=0.0, stride_s=0.5)
    write_video(archive / "deep/c.mkv", num_frames=40)  # another video now, under its name
    write_video(archive / "new.mp4", num_frames=90)
    old = by_window(tables(tmp_path / "old")["windows"])
    below = float(np.median([max(values) for _, _, values in old.values()]))
    label(archive, tmp_path / "all", surer, stride_s=0.5)
    everything = by_window(tables(tmp_path / "all")["windows"])

    uncertain = {"relabel": "uncertain", "earlier": str(tmp_path / "old"), "relabel_below": below, "stride_s": 0.5}
    abstain = float(np.median([max(values) for _, _, values in everything.values()]))
    summary = label(archive, tmp_path / "some", surer, abstain_below=abstain, **uncertain)
    some = by_window(tables(tmp_path / "some")["windows"])
    sure = {key: row for key, row in old.items() if key[0] != "c.mkv" and max(row[2]) >= np.float32(below)}
    assert 0 < len(sure) < len(everything)
    assert some == everything | sure
    assert summary.num_windows_now == len(everything) - len(sure)
    assert summary.published.covered_s + summary.published.failed_s == pytest.approx(summary.published.video_s)
    assert label(archive, tmp_path / "some", surer, abstain_below=abstain, **uncertain).num_chunks == 0, "that is done"

    # Kept once more, a window is still its first run's; and the threshold is at least what that run abstained below.
    again = uncertain | {"earlier": str(tmp_path / "some"), "relabel_below": 0.0}
    label(archive, tmp_path / "again", model, **again)
    unsure = {key for key, (_, _, values) in some.items() if max(values) < np.float32(abstain)}
    assert 0 < len(unsure) < len(some)
    theirs = by_window(tables(tmp_path / "again")["windows"])
    assert {key for key in some if theirs[key] != some[key]} == {key for key in unsure if some[key][0] != model}
    assert {theirs[key][0] for key in unsure} == {model}
    record = json.loads((tmp_path / "again/_run.json").read_text())
    assert [Path(run["model"]).name for run in record["runs"]] == [Path(uri).name for uri in (model, surer, model)]


def test_nothing_is_kept_of_a_run_that_does_not_fit(archive: Path, model: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    uncertain = {"relabel": "uncertain", "earlier": str(old)}
    with pytest.raises(RunError, match=r"old holds no run to keep windows of: there is no _run\.json"):
        label(archive, new, model, **uncertain)
    label(archive, old, model)
    with pytest.raises(RunError, match=r"are others \(stride_s: there 1\.0, now 0\.5\); none of them can be kept"):
        label(archive, new, model, stride_s=0.5, **uncertain)
    label(archive, new, model, **uncertain)
    with pytest.raises(RunError, match=r"new holds another run \(relabel: there \{"):
        label(archive, new, model)
    record = json.loads((old / "_run.json").read_text())
    del record["summary"]
    (old / "_run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="has not ended; run its command again first"):
        label(archive, tmp_path / "other", model, **uncertain)
