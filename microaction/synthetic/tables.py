"""What lies beside drawn videos: lists and tables, which are written whole, and those of skeletons only once."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from microaction.skeletons import Skeleton, write_skeletons


def write_atomically(path: Path, text: str) -> None:
    """Write a file under another name, then rename it, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text)
    temporary.replace(path)


def write_missing_skeletons(path: Path, names: Sequence[str], draw: Callable[[], Iterable[Skeleton]]) -> None:
    """Write the skeletons that `draw` returns as those of videos of these names, unless the table has just these already."""
    if path.exists() and set(pq.read_table(path, columns=["video"])["video"].unique().to_pylist()) == set(names):
        return
    write_skeletons(zip(names, draw(), strict=True), str(path))
