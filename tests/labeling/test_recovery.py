"""Faults that say nothing about the videos: they cost a second run, never a label."""

import gc
import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest
import ray

from microaction.labeling import catalog, ledger, pipeline, plan, run
from microaction.labeling.catalog import make_catalog, write_catalog
from microaction.labeling.pipeline import PipelineError
from microaction.labeling.publication import Publication, PublicationSource, publish
from microaction.labeling.record import RunError
from microaction.labeling.reuse import WindowReuse
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.tables import AccountingError
from microaction.registry import promote, register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.storage import StorageError
from microaction.storage.lease import LeaseLostError
from tests.archives import BAD, GOOD, write_model
from tests.labeling.decoders import REFUSAL, RefusedDecoder, probe_all_but_c, probe_nothing
from tests.labeling.labelers import OutOfMemoryLabeler
from tests.labeling.runs import FinishedRun, assert_same_tables, copy_of, finished_run, label, settings, tables
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finished_run(tmp_path_factory.mktemp("undisturbed"), model, abstain_below=0.0)


def test_videos_that_the_store_refuses_are_retried(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = undisturbed.archive, tmp_path / "out"
    monkeypatch.setattr(pipeline, "Decoder", RefusedDecoder)
    refused = label(archive, out, model)
    assert refused.num_to_retry == len(GOOD)
    assert json.loads((out / "_run.json").read_text())["summary"]["num_to_retry"] == len(GOOD)
    failures = tables(out)["failures"].set_index("error").loc["storage_error"]
    assert failures["reason"].unique().tolist() == [REFUSAL]
    monkeypatch.undo()
    again = label(archive, out, model)
    assert (again.num_chunks, again.num_to_retry) == (len(GOOD), 0)
    assert len(tables(out)["failures"]) == len(BAD)


def test_chunks_that_the_network_fails_on_are_retried(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = undisturbed.archive, tmp_path / "out"
    # c.mkv is the one video of a single window, and shares its block with the others.
    monkeypatch.setattr(pipeline, "LabelerActor", OutOfMemoryLabeler)
    summary = label(archive, out, model, abstain_below=0.0)
    row = tables(out)["failures"].set_index("video").loc[str(archive / "deep/c.mkv")]
    assert (row["stage"], row["error"], row["reason"]) == (
        "label",
        "model_error",
        "the network could not run: out of memory",
    )
    assert summary.num_to_retry == 1
    assert summary.publication.covered_s == pytest.approx(sum(GOOD.values()) - GOOD["deep/c.mkv"])
    monkeypatch.undo()
    assert label(archive, out, model, abstain_below=0.0).num_to_retry == 0
    assert_same_tables(tables(out), tables(undisturbed.out))


def test_labelers_that_failed_give_their_cpus_back(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the run is over, without waiting for Python's garbage collector: what comes next needs them."""
    monkeypatch.setattr(pipeline, "LabelerActor", OutOfMemoryLabeler)
    logging.disable()  # pytest keeps records, with the frames of their errors
    gc.disable()
    try:
        label(undisturbed.archive, tmp_path / "out", model)
        deadline_s = time.monotonic() + 20
        while (free := ray.available_resources().get("CPU", 0)) < ray.cluster_resources()["CPU"]:
            assert time.monotonic() < deadline_s, f"only {free} CPUs are free"
            time.sleep(0.1)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def test_a_ledger_that_cannot_be_written_ends_the_run(undisturbed: FinishedRun, model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/_chunks").write_text("not a folder")
    with pytest.raises(
        PipelineError, match=r"the ledger in .*/out cannot be written: .*_chunks/.* cannot be used: a part"
    ):
        label(undisturbed.archive, tmp_path / "out", model)


def test_a_video_that_changed_since_it_was_cataloged_is_retried(archive: Path, model: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "catalog.parquet")
    write_catalog(make_catalog(str(archive)), uri)
    write_video(archive / "a.mp4", num_frames=60)
    (archive / "b.avi").unlink()
    summary = label(archive, tmp_path / "out", model, catalog=uri)
    failures = tables(tmp_path / "out")["failures"].set_index("video")
    for name, what in (("a.mp4", "has changed"), ("b.avi", "no longer exists")):
        row = failures.loc[str(archive / name)]
        assert row["error"] == "video_changed"
        assert row["reason"].startswith(f"the file {what} since it was cataloged")
    assert summary.num_to_retry == 2
    write_catalog(make_catalog(str(archive)), uri)
    assert label(archive, tmp_path / "out", model, catalog=uri).num_to_retry == 0


def test_a_catalog_survives_refused_files_unless_all_are(
    undisturbed: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = undisturbed.archive
    monkeypatch.setattr(catalog, "_probe_batch", probe_all_but_c)
    monkeypatch.setattr(catalog, "FILES_PER_TASK", 1)
    errors = make_catalog(str(archive)).to_pandas().set_index("video")["error"]
    refused = {str(archive / "deep/c.mkv"), str(archive / "cut.mp4")}
    assert set(errors.index[errors == "storage_error"]) == refused
    with pytest.raises(StorageError, match=REFUSAL):
        make_catalog(str(archive / "deep"))


def test_unreadable_videos_are_probed_again_only_on_request(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = str(undisturbed.archive), copy_of(undisturbed.out, tmp_path)
    known = catalog.read_catalog(str(out / "_catalog.parquet"))
    with monkeypatch.context() as no_probes:
        no_probes.setattr(catalog, "_probe_batch", probe_nothing)
        assert make_catalog(archive, known=known).equals(known)
        assert label(undisturbed.archive, out, model).num_chunks == 0
    again: list[int] = []
    make_catalog(archive, known=known, retry_failed=True, on_video=lambda done, total: again.append(done))
    assert again[-1] - len(GOOD) == len(BAD) + len(["notes.txt"])


def test_chunks_whose_windows_are_all_reused_are_labeled(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_MAX_CHUNKS", 1)
    reuse = {"relabel": "uncertain", "base_run": str(undisturbed.out)}
    reused = label(undisturbed.archive, tmp_path / "new", model, abstain_below=0.0, **reuse)
    assert reused.num_windows_now == 0
    assert_same_tables(tables(undisturbed.out), tables(tmp_path / "new"), ignoring=("settings_digest",))


def test_reused_windows_are_found_in_compacted_files(undisturbed: FinishedRun, tmp_path: Path) -> None:
    out = copy_of(undisturbed.out, tmp_path)
    files = ledger.CHUNKS.list_commits(str(out))
    (row,) = (row for row in committed_rows(out) if row["video"].endswith("a.mp4"))
    chunk = {"video": row["video"], "base_chunk_id": row["chunk_id"], "base_file": files[0]}
    before = WindowReuse(str(out), 0.0).reused(chunk)
    assert before.start_us_W.tolist() == row["window_start_us"]
    ledger.CHUNKS.compact(str(out), files)
    np.testing.assert_array_equal(WindowReuse(str(out), 0.0).reused(chunk).probabilities_WK, before.probabilities_WK)


def committed_rows(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pads.dataset(out / "_chunks").to_table().to_pylist()
    return rows


def test_a_resumed_run_keeps_the_model_that_it_started_with(
    undisturbed: FinishedRun, model: str, tmp_path: Path
) -> None:
    registry, versions = str(tmp_path / "models"), list[str]()
    for source in (model, write_model(tmp_path / "better", gain=30)):
        trained = tmp_path / f"trained-{len(versions)}"
        shutil.copytree(source, trained)
        (trained / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
        versions.append(register(registry, str(trained)).name)
    promote(registry, versions[0], reason="the first")

    def stop(progress: Progress) -> None:
        if progress.stage == "label":
            raise KeyboardInterrupt

    command = settings(undisturbed.archive, tmp_path / "out", f"{registry}@production")
    with pytest.raises(KeyboardInterrupt):
        run_labeling(command, on_progress=stop)
    promote(registry, versions[1], reason="better")
    run_labeling(command)
    assert set(tables(tmp_path / "out")["windows"]["model"]) == {f"{registry}/{versions[0]}"}
    with pytest.raises(RunError, match="model_digest: recorded"):
        run_labeling(command)  # the resumed run has finished, so this one starts with the present model


def test_chunks_that_exceed_the_decoders_memory_are_refused(
    undisturbed: FinishedRun, model: str, tmp_path: Path
) -> None:
    expected = r"chunk_s \(3600\) needs .* GiB to decode, more than decode_memory_gib \(0.1\)"
    with pytest.raises(RunError, match=expected):
        label(undisturbed.archive, tmp_path / "out", model, chunk_s=3600.0, decode_memory_gib=0.1)


def test_readers_keep_the_old_tables_if_publishing_fails(
    undisturbed: FinishedRun, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is lost, or seconds of video are missing."""
    archive, out = undisturbed.archive, copy_of(undisturbed.out, tmp_path)
    before = tables(out)

    def lose_lease(lease: object, *, refresh: bool = True) -> None:
        if refresh:
            raise LeaseLostError("another process has it")

    with monkeypatch.context() as lost:
        lost.setattr("microaction.storage.lease.Lease.check", lose_lease)
        with pytest.raises(LeaseLostError):
            label(archive, out, model, abstain_below=0.9)
    assert_same_tables(tables(out), before)

    def publish_longer_videos(source: PublicationSource, index: pa.Table, **options: Any) -> Publication:
        position = source.catalog.schema.get_field_index("duration_s")
        longer = source.catalog.set_column(
            position, source.catalog.schema.field(position), pc.add(source.catalog["duration_s"], 1.0)
        )
        return publish(replace(source, catalog=longer), index, **options)

    monkeypatch.setattr(run, "publish", publish_longer_videos)
    with pytest.raises(AccountingError, match=r"1\.0+ s of .*\.mp4 are neither labeled nor"):
        label(archive, out, model, abstain_below=0.9)
    assert_same_tables(tables(out), before)
