"""Tables of the skeletons of drawn videos, which are written once, as the videos are."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from microaction.skeletons import Skeleton, write_skeletons


def write_missing_skeletons(path: Path, names: Sequence[str], draw: Callable[[], Iterable[Skeleton]]) -> None:
    """Write the skeletons that `draw` returns as those of videos of these names, unless the table has just these already."""
    if path.exists() and set(pq.read_table(path, columns=["video"])["video"].unique().to_pylist()) == set(names):
        return
    write_skeletons(zip(names, draw(), strict=True), str(path))
