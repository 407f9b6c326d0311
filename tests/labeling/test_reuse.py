"""What is kept of an earlier run, and what is labelled again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microaction.labeling.record import RunError
from tests.archives import write_model
from tests.labeling.runs import label, tables
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


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

    uncertain = {"relabel": "uncertain", "base_run": str(tmp_path / "old"), "relabel_below": below, "stride_s": 0.5}
    abstain = float(np.median([max(values) for _, _, values in everything.values()]))
    summary = label(archive, tmp_path / "some", surer, abstain_below=abstain, **uncertain)
    some = by_window(tables(tmp_path / "some")["windows"])
    sure = {key: row for key, row in old.items() if key[0] != "c.mkv" and max(row[2]) >= np.float32(below)}
    assert 0 < len(sure) < len(everything)
    assert some == everything | sure
    assert summary.num_windows_now == len(everything) - len(sure)
    assert summary.publication.covered_s + summary.publication.failed_s == pytest.approx(summary.publication.video_s)
    assert label(archive, tmp_path / "some", surer, abstain_below=abstain, **uncertain).num_chunks == 0, "that is done"

    # Kept once more, a window is still its first run's; and the threshold is at least what that run abstained below.
    again = uncertain | {"base_run": str(tmp_path / "some"), "relabel_below": 0.0}
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
    uncertain = {"relabel": "uncertain", "base_run": str(old)}
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
