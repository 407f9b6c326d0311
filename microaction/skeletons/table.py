"""Skeletons as a Parquet table: a row per clip or video, frame and person (`schema.SKELETONS`).

Shapes: M people, N frames, K keypoints, R rows.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.schema import SKELETONS
from microaction.skeletons.errors import SkeletonError
from microaction.skeletons.skeleton import NUM_KEYPOINTS, Skeleton

CLIPS_PER_GROUP = 256
ROWS_PER_GROUP = 16384  # of a long video: what a chunk does not need is not read


def write_skeletons(skeletons: Iterable[tuple[str, Skeleton]], uri: str) -> int:
    """Write the skeletons of clips, by name, as one file; return how many. A clip's rows lie one after the other.

    Names must not repeat. People who are found in no frame of a clip have rows too, with scores of 0.
    """
    sink = pa.BufferOutputStream()
    names: set[str] = set()
    with pq.ParquetWriter(sink, SKELETONS, compression="zstd") as writer:
        group: list[pa.Table] = []
        for name, skeleton in skeletons:
            if name in names:
                raise SkeletonError(f"{name} occurs twice: names of clips must be unique")
            names.add(name)
            group.append(_rows(name, skeleton))
            if len(group) == CLIPS_PER_GROUP:
                writer.write_table(pa.concat_tables(group), ROWS_PER_GROUP)
                group = []
        if group:
            writer.write_table(pa.concat_tables(group), ROWS_PER_GROUP)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return len(names)


def read_skeletons(uri: str) -> Iterator[tuple[str, Skeleton]]:
    """Yield the name and the skeleton of each clip of a table, in its order. Raises `SkeletonError` and `FileNotFoundError`."""
    try:
        file = open_table(pa.BufferReader(storage.read_bytes(uri)), uri)
        waiting: pa.Table = SKELETONS.empty_table()
        for number in range(file.num_row_groups):
            waiting = pa.concat_tables([waiting, file.read_row_group(number)])
            video = waiting["video"].to_numpy(zero_copy_only=False)
            starts = [0, *(np.flatnonzero(video[1:] != video[:-1]) + 1).tolist()]
            for start, end in pairwise(starts):
                yield str(video[start]), skeleton_of_rows(waiting.slice(start, end - start), uri)
            waiting = waiting.slice(starts[-1])
        if len(waiting):
            yield waiting["video"][0].as_py(), skeleton_of_rows(waiting, uri)
    except pa.ArrowInvalid as error:
        raise SkeletonError(f"{uri}: not a Parquet file") from error


def open_table(source: Any, uri: str) -> pq.ParquetFile:
    """Return an open table of skeletons. Raises `SkeletonError` for other tables, and pyarrow's for other files."""
    file = pq.ParquetFile(source)
    if not file.schema_arrow.equals(SKELETONS):
        raise SkeletonError(f"{uri}: not a table of skeletons: its columns are {', '.join(file.schema_arrow.names)}")
    return file


def _rows(name: str, skeleton: Skeleton) -> pa.Table:
    M, N = skeleton.scores_MNK.shape[:2]
    values_RK3 = np.concatenate([skeleton.keypoints_MNK2, skeleton.scores_MNK[..., None]], axis=3)
    values = values_RK3.transpose(1, 0, 2, 3).reshape(-1)  # frame by frame
    return pa.table(
        {
            "video": pa.array([name] * (M * N)),
            "frame": pa.array(np.repeat(np.arange(N, dtype=np.int32), M)),
            "person": pa.array(np.tile(np.arange(1, M + 1, dtype=np.int32), N)),
            "width": pa.array(np.full(M * N, skeleton.width, np.int32)),
            "height": pa.array(np.full(M * N, skeleton.height, np.int32)),
            "keypoints": pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), NUM_KEYPOINTS * 3),
        },
        schema=SKELETONS,
    )


def skeleton_of_rows(rows: pa.Table, uri: str, num_frames: int = 0) -> Skeleton:
    """Return the skeleton of a clip's rows, of at least `num_frames`; frames or people without a row were not found."""
    name = rows["video"][0].as_py()
    frame_R, person_R = (rows[column].to_numpy() for column in ("frame", "person"))
    if frame_R.min() < 0 or person_R.min() < 1:
        raise SkeletonError(f"{uri}: {name}: frames are counted from 0, and people from 1")
    shape = (int(person_R.max()), max(int(frame_R.max()) + 1, num_frames), NUM_KEYPOINTS, 3)
    values_MNK3 = np.zeros(shape, np.float32)
    flat = rows["keypoints"].combine_chunks().flatten().to_numpy()
    values_MNK3[person_R - 1, frame_R] = flat.reshape(-1, NUM_KEYPOINTS, 3)
    width, height = (rows[column][0].as_py() for column in ("width", "height"))
    return Skeleton.checked(values_MNK3[..., :2], values_MNK3[..., 2], width, height, f"{uri}: {name}")
