"""The skeletons of an archive's long videos: a span of one video at a time out of a table, without reading the rest."""

import posixpath
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.schema import SKELETONS
from microaction.skeletons.errors import NoSkeletonError, SkeletonError
from microaction.skeletons.skeleton import Skeleton
from microaction.skeletons.table import open_table, skeleton_of_rows


@dataclass(frozen=True)
class ArchiveSkeletons:
    """A table of skeletons (`schema.SKELETONS`) that names videos relative to the archive's folder, `root`; other videos, and all
    of them if it is empty, by their file names."""

    uri: str
    root: str

    def check(self) -> None:
        """Raise `SkeletonError` if the file is no such table, or missing."""
        _footer(self.uri)

    def name_of(self, video: str) -> str:
        """Return how the table names a video."""
        folder = self.root.rstrip("/") + "/"
        return video.removeprefix(folder) if self.root and video.startswith(folder) else posixpath.basename(video)

    def read(self, video: str, start: int, end: int) -> Skeleton:
        """Return the skeleton of a video's frames from `start` up to `end`; without keypoints where the table has no rows.

        Row groups of other videos or frames are not read. Raises `NoSkeletonError` if it has none of these frames at all.
        """
        name = self.name_of(video)
        metadata = _footer(self.uri)
        groups = [
            number
            for number in range(metadata.num_row_groups)
            if _may_hold(metadata.row_group(number), {"video": (name, name), "frame": (start, end - 1)})
        ]
        with storage.open_input(self.uri) as source:
            rows = pq.ParquetFile(source, metadata=metadata).read_row_groups(groups)
        frame_R = rows["frame"].to_numpy()
        is_asked_R = (frame_R >= start) & (frame_R < end) & (rows["video"].to_numpy(zero_copy_only=False) == name)
        rows = rows.filter(pa.array(is_asked_R))
        if len(rows) == 0:
            raise NoSkeletonError(f"{self.uri} has no skeleton of {name} here")
        moved = pa.array(rows["frame"].to_numpy() - start, pa.int32())
        rows = rows.set_column(rows.schema.get_field_index("frame"), SKELETONS.field("frame"), moved)
        return skeleton_of_rows(rows, self.uri, num_frames=end - start)


def _may_hold(group: Any, wanted: dict[str, tuple[Any, Any]]) -> bool:
    """Return whether a row group's statistics allow values in these ranges."""
    for number in range(group.num_columns):
        column = group.column(number)
        low, high = wanted.get(column.path_in_schema, (None, None))
        statistics = column.statistics
        if low is None or statistics is None or not statistics.has_min_max:
            continue
        if statistics.max < low or statistics.min > high:
            return False
    return True


def _footer(uri: str) -> Any:
    """Return the metadata of a table; each process reads that of one version of the file once."""
    try:
        return _footer_of_version(uri, storage.version_of(uri))
    except FileNotFoundError:
        raise SkeletonError(f"no table of skeletons at {uri}") from None
    except pa.ArrowInvalid as error:
        raise SkeletonError(f"{uri}: not a Parquet file") from error


@lru_cache(maxsize=4)
def _footer_of_version(uri: str, version: str) -> Any:  # noqa: ARG001 - another version is read again
    with storage.open_input(uri) as source:
        return open_table(source, uri).metadata


def frames_at(times_s: Any, fps: float) -> np.ndarray:
    """Return which frames are shown at times (in seconds) of a video of a constant frame rate."""
    return np.array([int(time * fps + 1e-6) for time in times_s], np.int64)
