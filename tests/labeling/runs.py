"""Labeling runs of the tests, and their tables."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from microaction.labeling.run import Progress, RunSummary, run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.schema import PUBLIC_TABLES
from tests.archives import write_archive


def settings(archive: Path, out: Path, model: str, **changes: object) -> LabelSettings:
    fields = {"archive": str(archive), "out": str(out), "model": model, "start_threshold": 0.02, "precision": "fp32"}
    fields |= {"people": "off"}  # most archives of the tests show test patterns
    return LabelSettings.model_validate(fields | changes)


def label(archive: Path, out: Path, model: str, **changes: object) -> RunSummary:
    return run_labeling(settings(archive, out, model, **changes))


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """Return the public tables of a run, sorted by video, time and action."""
    frames = {name: pd.read_parquet(out / name) for name in PUBLIC_TABLES}
    for name, frame in frames.items():
        frame["video"] = frame["video"].astype(str)
        order = [column for column in ("video", "start_s", "action_id") if column in frame]
        frames[name] = frame.sort_values(order).reset_index(drop=True)
    return frames


def assert_same_tables(
    a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame], *, ignoring: tuple[str, ...] = ()
) -> None:
    """Assert that tables are equal to the last bit, in all columns but the ignored ones."""
    for name in PUBLIC_TABLES:
        left, right = (t[name].drop(columns=[c for c in ignoring if c in t[name]]) for t in (a, b))
        for column in ("probabilities", "body_part_probabilities"):
            if column in left and len(left) == len(right) == 0:
                left, right = (each.drop(columns=column) for each in (left, right))
            elif column in left:
                np.testing.assert_array_equal(np.stack(list(left.pop(column))), np.stack(list(right.pop(column))))
        pd.testing.assert_frame_equal(left, right, check_exact=True, check_categorical=False)


class FinishedRun(NamedTuple):
    """A run that several tests look at: none may change its files."""

    archive: Path
    out: Path
    summary: RunSummary
    progress: list[Progress]


def finished_run(folder: Path, model: str, **changes: object) -> FinishedRun:
    """Label an archive of good and bad files in a new folder."""
    archive, out = write_archive(folder / "archive"), folder / "out"
    progress: list[Progress] = []
    summary = run_labeling(settings(archive, out, model, **changes), on_progress=progress.append)
    return FinishedRun(archive, out, summary, progress)


def copy_of(out: Path, folder: Path) -> Path:
    """Return a copy of a run's output, in which the same command continues."""
    return Path(shutil.copytree(out, folder / "out", symlinks=True))
