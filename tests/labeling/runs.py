"""Labelling runs of the tests, and their tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from microaction.labeling.run import RunSummary, run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.schema import PUBLIC_TABLES


def settings(archive: Path, out: Path, model: str, **changes: object) -> LabelSettings:
    fields = {"archive": str(archive), "out": str(out), "model": model, "start_threshold": 0.1, "precision": "fp32"}
    return LabelSettings.model_validate(fields | changes)


def label(archive: Path, out: Path, model: str, **changes: object) -> RunSummary:
    return run_labeling(settings(archive, out, model, **changes))


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """The published tables, videos by the end of their name, in an order of their own."""
    frames = {name: pd.read_parquet(out / name) for name in PUBLIC_TABLES}
    for name, frame in frames.items():
        frame["video"] = frame["video"].astype(str)
        order = [column for column in ("video", "start_s", "action_id") if column in frame]
        frames[name] = frame.sort_values(order).reset_index(drop=True)
    return frames


def assert_same_tables(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame], *, but: tuple[str, ...] = ()) -> None:
    """Equal to the last bit."""
    for name in PUBLIC_TABLES:
        left, right = (t[name].drop(columns=[c for c in but if c in t[name]]) for t in (a, b))
        for column in ("probabilities", "body_part_probabilities"):
            if column in left:
                np.testing.assert_array_equal(np.stack(list(left.pop(column))), np.stack(list(right.pop(column))))
        pd.testing.assert_frame_equal(left, right, check_exact=True, check_categorical=False)
