"""Trouble that is not the videos' fault: it costs a second run, never a label."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest

from microaction.labeling import catalog, ledger, pipeline, plan, run
from microaction.labeling.catalog import make_catalog, write_catalog
from microaction.labeling.pipeline import PipelineError
from microaction.labeling.publication import publish
from microaction.labeling.record import RunError
from microaction.labeling.reuse import WindowReuse
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.tables import AccountingError
from microaction.registry import promote, register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.storage import StorageError
from microaction.storage.lease import LeaseLostError
from tests.archives import BAD, GOOD, write_model
from tests.labeling.runs import assert_same_tables, label, settings, tables
from tests.labeling.troubles import REFUSED, BrokenLabeler, RefusedDecoder, probe_but_not_c, probe_nothing
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_what_storage_refuses_is_not_done(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(pipeline, "Decoder", RefusedDecoder)
    refused = label(archive, out, model)
    assert refused.num_to_retry == len(GOOD)
    assert json.loads((out / "_run.json").read_text())["summary"]["num_to_retry"] == len(GOOD)
    failures = tables(out)["failures"].set_index("error").loc["storage_error"]
    assert failures["reason"].unique().tolist() == [REFUSED]
    monkeypatch.undo()
    again = label(archive, out, model)
    assert (again.num_chunks, again.num_to_retry) == (len(GOOD), 0)
    assert len(tables(out)["failures"]) == len(BAD)


def test_what_the_network_cannot_do_is_told_in_its_own_words_and_not_done(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"  # c.mkv is the one video of a single window, and shares its block with the others
    monkeypatch.setattr(pipeline, "Labeler", BrokenLabeler)
    summary = label(archive, out, model)
    row = tables(out)["failures"].set_index("video").loc[str(archive / "deep/c.mkv")]
    assert (row["stage"], row["error"], row["reason"]) == ("label", "model_error", "RuntimeError: out of memory")
    assert summary.num_to_retry == 1
    assert summary.publication.covered_s == pytest.approx(sum(GOOD.values()) - GOOD["deep/c.mkv"])
    monkeypatch.undo()
    assert label(archive, out, model).num_to_retry == 0
    label(archive, tmp_path / "quiet", model)
    assert_same_tables(tables(out), tables(tmp_path / "quiet"))


def test_a_ledger_that_cannot_be_written_ends_the_run_at_once(archive: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/_chunks").write_text("no folder")
    with pytest.raises(PipelineError, match=r"the ledger in .*/out cannot be written: \w*Error: "):
        label(archive, tmp_path / "out", model)


def test_a_video_that_changed_since_it_was_catalogued_is_not_labelled_as_the_old_one(
    archive: Path, model: str, tmp_path: Path
) -> None:
    uri = str(tmp_path / "catalog.parquet")
    write_catalog(make_catalog(str(archive)), uri)
    write_video(archive / "a.mp4", num_frames=60)
    (archive / "b.avi").unlink()
    summary = label(archive, tmp_path / "out", model, catalog=uri)
    failures = tables(tmp_path / "out")["failures"].set_index("video")
    for name, what in (("a.mp4", "is another one"), ("b.avi", "is gone")):
        assert failures.loc[str(archive / name)]["reason"].startswith(f"the file {what} since it was catalogued")
    assert summary.num_to_retry == 2
    write_catalog(make_catalog(str(archive)), uri)
    assert label(archive, tmp_path / "out", model, catalog=uri).num_to_retry == 0


def test_some_files_that_storage_withholds_stop_nobody_and_all_of_them_do(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_probe_batch", probe_but_not_c)
    monkeypatch.setattr(catalog, "FILES_PER_TASK", 1)
    errors = make_catalog(str(archive)).to_pandas().set_index("video")["error"]
    withheld = {str(archive / "deep/c.mkv"), str(archive / "cut.mp4")}
    assert set(errors.index[errors == "storage_error"]) == withheld
    with pytest.raises(StorageError, match=REFUSED):
        make_catalog(str(archive / "deep"))


def test_failures_of_the_catalog_are_tried_again_when_that_is_asked_for(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    label(archive, out, model)
    known = catalog.read_catalog(str(out / "_catalog.parquet"))
    with monkeypatch.context() as nothing_new:
        nothing_new.setattr(catalog, "_probe_batch", probe_nothing)
        assert make_catalog(str(archive), known=known).equals(known), "a finished archive is not opened again"
        assert label(archive, out, model).num_chunks == 0
    again: list[int] = []
    make_catalog(str(archive), known=known, retry_failed=True, on_video=lambda done, total: again.append(done))
    assert again[-1] - len(GOOD) == len(BAD)


def test_chunks_of_which_all_is_kept_are_labelled_too(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_MAX_CHUNKS", 1)
    label(archive, tmp_path / "old", model, abstain_below=0.0)
    kept = label(
        archive, tmp_path / "new", model, abstain_below=0.0, relabel="uncertain", base_run=str(tmp_path / "old")
    )
    assert kept.num_windows_now == 0
    assert_same_tables(tables(tmp_path / "old"), tables(tmp_path / "new"), but=("settings_digest",))


def test_what_is_kept_is_found_where_the_earlier_run_has_put_its_files_together(
    archive: Path, model: str, tmp_path: Path
) -> None:
    old = str(tmp_path / "old")
    label(archive, tmp_path / "old", model)
    files = ledger.list_commits(old)
    (row,) = (row for row in committed_rows(tmp_path / "old") if row["video"].endswith("a.mp4"))
    chunk = {"video": row["video"], "base_chunk_id": row["chunk_id"], "base_file": files[0]}
    before = WindowReuse(old, 0.0).reused(chunk)
    assert before.start_us_W.tolist() == row["window_start_us"]
    ledger.compact(old, files)
    np.testing.assert_array_equal(WindowReuse(old, 0.0).reused(chunk).probabilities_WK, before.probabilities_WK)


def committed_rows(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pads.dataset(out / "_chunks").to_table().to_pylist()
    return rows


def test_many_waves_are_one_run(archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label(archive, tmp_path / "one", model, chunk_s=1.0)
    monkeypatch.setattr(plan, "BLOCK_MAX_CHUNKS", 2)
    monkeypatch.setattr(run, "BLOCKS_PER_WAVE", 2)
    label(archive, tmp_path / "many", model, chunk_s=1.0)
    assert_same_tables(tables(tmp_path / "one"), tables(tmp_path / "many"))


def test_a_run_that_was_stopped_goes_on_with_its_model_whatever_is_in_production_by_then(
    archive: Path, model: str, tmp_path: Path
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

    command = settings(archive, tmp_path / "out", f"{registry}@production")
    with pytest.raises(KeyboardInterrupt):
        run_labeling(command, on_progress=stop)
    promote(registry, versions[1], reason="better")
    run_labeling(command)
    assert set(tables(tmp_path / "out")["windows"]["model"]) == {f"{registry}/{versions[0]}"}
    with pytest.raises(RunError, match="model_digest: there"):
        run_labeling(command)  # that run has ended


def test_chunks_that_no_decoder_could_hold_are_refused(archive: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"chunk_s \(3600\) needs .* GiB to decode, more than decode_memory_gib \(0.1\)"):
        label(archive, tmp_path / "out", model, chunk_s=3600.0, decode_memory_gib=0.1)


def test_readers_keep_the_old_tables_where_the_lease_is_lost_or_the_account_does_not_add_up(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    label(archive, out, model)
    before = tables(out)

    def lost(*, refresh: bool = True) -> None:
        if refresh:
            raise LeaseLostError("somebody else has it")

    monkeypatch.setattr("microaction.storage.lease.Lease.check", lambda lease, *, refresh=True: lost(refresh=refresh))
    with pytest.raises(LeaseLostError):
        label(archive, out, model, abstain_below=0.9)
    monkeypatch.undo()
    assert_same_tables(tables(out), before)

    def short_by_a_second(*arguments: object, **options: object) -> object:
        given = list(arguments)
        videos = given[1].to_pandas()  # type: ignore[attr-defined]
        videos.loc[videos["duration_s"].notna(), "duration_s"] += 1.0
        given[1] = type(arguments[1]).from_pandas(videos, schema=arguments[1].schema)  # type: ignore[attr-defined]
        return publish(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "publish", short_by_a_second)
    with pytest.raises(AccountingError, match=r"3\.0+ s of video are neither labelled nor"):
        label(archive, out, model, abstain_below=0.9)
    assert_same_tables(tables(out), before)
