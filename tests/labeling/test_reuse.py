"""What a run reuses of a base run, and what it labels again."""

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
    """Return (file, start): (model, its digest, probabilities)."""
    rows = zip(
        frame["video"], frame["start_s"], frame["model"], frame["model_digest"], frame["probabilities"], strict=True
    )
    return {(Path(video).name, start): (model, digest, list(values)) for video, start, model, digest, values in rows}


def test_only_uncertain_windows_are_labeled_again(archive: Path, model: str, tmp_path: Path) -> None:
    surer = write_model(tmp_path / "surer", gain=30)
    label(archive, tmp_path / "old", model, abstain_below=0.0, stride_s=0.5)
    write_video(archive / "deep/c.mkv", num_frames=40)  # another video under the same name
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
    assert label(archive, tmp_path / "some", surer, abstain_below=abstain, **uncertain).num_chunks == 0

    # Reused once more, a window still belongs to the first run; the threshold is at least what the base run abstained below.
    again = uncertain | {"base_run": str(tmp_path / "some"), "relabel_below": 0.0}
    label(archive, tmp_path / "again", model, **again)
    unsure = {key for key, (_, _, values) in some.items() if max(values) < np.float32(abstain)}
    assert 0 < len(unsure) < len(some)
    final = by_window(tables(tmp_path / "again")["windows"])
    assert {key for key in some if final[key] != some[key]} == {key for key in unsure if some[key][0] != model}
    assert {final[key][0] for key in unsure} == {model}
    record = json.loads((tmp_path / "again/_run.json").read_text())
    assert [Path(run["model"]).name for run in record["runs"]] == [Path(uri).name for uri in (model, surer, model)]


@pytest.mark.slow
def test_base_runs_that_do_not_fit_are_refused(archive: Path, model: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    uncertain = {"relabel": "uncertain", "base_run": str(old)}
    with pytest.raises(RunError, match=r"old holds no run to reuse windows of: _run\.json is missing"):
        label(archive, new, model, **uncertain)
    label(archive, old, model)
    with pytest.raises(RunError, match=r"has other windows \(stride_s: recorded 1\.0, now 0\.5\): none of them can be"):
        label(archive, new, model, stride_s=0.5, **uncertain)
    label(archive, new, model, **uncertain)
    with pytest.raises(RunError, match=r"new holds another run \(relabel: recorded \{"):
        label(archive, new, model)
    record = json.loads((old / "_run.json").read_text())
    del record["summary"]
    (old / "_run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"old is not finished: run its command again first"):
        label(archive, tmp_path / "other", model, **uncertain)
