"""Runs with a detector on Ray: the same as in one process, and tables made anew without any video."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import microaction
from microaction.errors import UsageError
from microaction.labeling.feature_tracks import joined_tracks
from microaction.labeling.ledger import CHUNKS
from microaction.labeling.pool import LabelerPool
from microaction.labeling.record import read_record
from microaction.labeling.run import run_labeling
from microaction.schema import PUBLIC_TABLES
from tests.labeling.runs import assert_same_tables, settings, tables
from tests.models.detectors import save_detector
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]
MIN_SCORE = 0.2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_detector(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def labeled(ray_cluster: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An archive of two videos and a file that is none, labeled in chunks of 2 s."""
    archive, out = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("out")
    write_video(archive / "a.mp4", num_frames=180, fps=20)  # 9 s
    write_video(archive / "b.mp4", num_frames=100)
    (archive / "c.mp4").write_bytes(b"not a video")
    summary = run_labeling(settings(archive, out, model, chunk_s=2.0, min_score=MIN_SCORE))
    assert summary.publication.num_events > 5
    return archive, out


def test_a_run_says_what_one_process_says(labeled: tuple[Path, Path], model: str) -> None:
    archive, out = labeled
    found = tables(out)
    alone = microaction.label_video(
        archive / "a.mp4", model, chunk_s=2.0, precision="fp32", people="off", min_score=MIN_SCORE
    )
    ours = found["events"][found["events"]["video"] == str(archive / "a.mp4")]
    theirs = alone.events.to_pandas()
    columns = ["action_id", "start_s", "end_s", "probability", "peak_probability"]
    pd.testing.assert_frame_equal(
        ours.sort_values(columns)[columns].reset_index(drop=True),
        theirs.sort_values(columns)[columns].reset_index(drop=True),
        check_exact=True,
    )
    assert len(found["windows"]) == 0
    assert len(found["failures"]) == 1, "the file that is no video"
    assert list(found["videos"]["coverage"].dropna()) == pytest.approx([1, 1])


def test_relabeling_reads_no_video(labeled: tuple[Path, Path], model: str, tmp_path: Path) -> None:
    archive, before = labeled
    out = Path(shutil.copytree(before, tmp_path / "out", symlinks=True))
    hidden = archive.with_name("hidden")
    archive.rename(hidden)
    try:
        summary = run_labeling(settings(archive, out, model, chunk_s=2.0, min_score=0.5, relabel="events"))
        assert summary.num_chunks == 0
        events = tables(out)["events"]
        assert 0 < len(events) < len(tables(before)["events"])
        assert (events["probability"] >= 0.5).all()
        other = save_detector(tmp_path / "other", head_seed=1)
        run_labeling(settings(archive, out, other, chunk_s=2.0, min_score=MIN_SCORE, relabel="events"))
        assert set(tables(out)["events"]["model"]) == {other}
        again = tmp_path / "again"
    finally:
        hidden.rename(archive)
    run_labeling(settings(archive, again, other, chunk_s=2.0, min_score=MIN_SCORE))
    assert_same_tables(tables(out), tables(again), ignoring=("settings_digest",))


def test_relabeling_needs_no_device_of_the_kind_that_labeled(
    labeled: tuple[Path, Path], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, before = labeled
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(LabelerPool, "device", "GPU")
        run_labeling(settings(archive, out, model, chunk_s=2.0, min_score=0.5))
    record = read_record(str(out))
    assert record is not None
    assert record["identity"]["device"] == "GPU"
    summary = run_labeling(settings(archive, out, model, chunk_s=2.0, min_score=MIN_SCORE, relabel="events"))
    assert summary.num_chunks == 0
    assert_same_tables(tables(out), tables(before), ignoring=("settings_digest",))


def test_a_detector_of_other_features_needs_another_output(labeled: tuple[Path, Path], tmp_path: Path) -> None:
    archive, out = labeled
    other = save_detector(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="model_digest"):
        run_labeling(settings(archive, out, other, chunk_s=2.0))


def test_the_ledger_holds_float16_features_in_order(labeled: tuple[Path, Path]) -> None:
    archive, out = labeled
    index = CHUNKS.read_index(str(out))
    name = str(archive / "a.mp4")
    rows = CHUNKS.read_rows(
        str(out), sorted(set(index["file"].to_pylist())), index["chunk_id"].combine_chunks(), (name, name)
    )
    ((track, features_TC),) = joined_tracks(rows)
    assert (track.person, track.first_step, track.num_steps, track.end_us) == (0, 0, 72, 9_000_000)
    assert features_TC.shape == (72, 16)
    assert features_TC.dtype == np.float16
    assert set(PUBLIC_TABLES) == {"windows", "activity", "events", "people", "videos", "failures"}
