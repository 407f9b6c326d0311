"""Tables of detections: anybody's, and the events that `microaction label` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction import storage
from microaction.errors import UsageError
from microaction.evaluation.detection import TimedAction
from microaction.schema import parquet_bytes
from microaction.taxonomy import ACTIONS

SUFFIX = ".parquet"
COLUMNS = ("video", "start_s", "end_s")
ACTION_COLUMNS = ("action_id", "action")  # the first that a table has
SCORE_COLUMNS = ("score", "probability")  # the second is that of events
_ID_OF_ACTION = {name: number for number, name in enumerate(ACTIONS)}


class DetectionTableError(UsageError):
    """A table of detections cannot be read, or one of its rows is no detection."""


def read_detections(uri: str) -> list[TimedAction]:
    """Return the detections of a Parquet file, or of all Parquet files below a folder, in order of file and row.

    Columns: video, start_s and end_s (seconds), action_id or action (a name or a number), and score or probability, in
    [0, 1]. So `OUT/events` of `microaction label` is one; who acted is not distinguished. Videos keep the names that the table
    gives them. Raises `DetectionTableError` for missing files and columns, empty cells, unknown actions, spans that end before
    they start, and scores outside [0, 1]. A table without rows has no detections.
    """
    try:
        files = [uri] if uri.endswith(SUFFIX) else [file.uri for file in storage.list_files(uri)]
        files = [file for file in files if file.endswith(SUFFIX)]
        if not files:
            raise DetectionTableError(f"no Parquet files below {uri}: give a table of detections or a folder of such")
        return [event for file in files for event in _read(file)]
    except FileNotFoundError:
        raise DetectionTableError(f"no table of detections at {uri}: check the spelling") from None


def detections_table(detections: Sequence[TimedAction], labels: Sequence[str] = ACTIONS) -> bytes:
    """Return a Parquet file with a row per detection, which `read_detections` reads."""
    columns: dict[str, Any] = {
        "video": pa.array([event.video for event in detections], pa.string()),
        "action_id": pa.array([event.action_id for event in detections], pa.int32()),
        "action": pa.array([labels[event.action_id] for event in detections], pa.string()),
        "start_s": pa.array([event.start_s for event in detections], pa.float64()),
        "end_s": pa.array([event.end_s for event in detections], pa.float64()),
        "score": pa.array([event.score for event in detections], pa.float64()),
    }
    return parquet_bytes(pa.table(columns))


def _read(uri: str) -> list[TimedAction]:
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except pa.ArrowInvalid as error:
        raise DetectionTableError(f"{uri} is not a Parquet file: {error}") from error
    names = [*COLUMNS, *(_first_of(table, options, uri) for options in (ACTION_COLUMNS, SCORE_COLUMNS))]
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DetectionTableError(f"{uri} lacks the columns {', '.join(missing)}; {_needed()}")
    columns = {}
    for name in names:
        columns[name] = table.column(name).to_pylist()
        if None in columns[name]:
            raise DetectionTableError(f"{uri}, row {columns[name].index(None) + 1}: {name} is empty")
    videos, starts, ends, actions, scores = columns.values()
    action_ids = [_action_id(action, f"{uri}, row {row}") for row, action in enumerate(actions, start=1)]
    start_D, end_D, score_D = (
        _numbers(values, name, uri) for values, name in ((starts, "start_s"), (ends, "end_s"), (scores, names[-1]))
    )
    if not all(isinstance(video, str) for video in videos):
        raise DetectionTableError(f"{uri}: the column video must hold names of files")
    for is_wrong_D, rule in (
        (~(np.isfinite(start_D) & np.isfinite(end_D) & (start_D <= end_D)), "it must end at or after its start"),
        (~((score_D >= 0) & (score_D <= 1)), f"{names[-1]} must be in [0, 1]"),
    ):
        if is_wrong_D.any():
            row = int(is_wrong_D.argmax())
            span = f"[{start_D[row]:g}, {end_D[row]:g}) s with {names[-1]} {score_D[row]:g}"
            raise DetectionTableError(f"{uri}, row {row + 1}: {rule}; it is {span}")
    rows = zip(videos, action_ids, start_D.tolist(), end_D.tolist(), score_D.tolist(), strict=True)
    return [TimedAction(*row) for row in rows]


def _first_of(table: pa.Table, options: tuple[str, ...], uri: str) -> str:
    for name in options:
        if name in table.column_names:
            return name
    raise DetectionTableError(f"{uri} has no column {' or '.join(options)}; {_needed()}")


def _needed() -> str:
    return f"a table of detections has {', '.join(COLUMNS)}, {' or '.join(ACTION_COLUMNS)}, and {' or '.join(SCORE_COLUMNS)}"


def _numbers(values: list[Any], name: str, uri: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DetectionTableError(f"{uri}: the column {name} must hold numbers") from None


def _action_id(action: object, where: str) -> int:
    """Return the number of an action's name or number."""
    if isinstance(action, str):
        if action not in _ID_OF_ACTION:
            raise DetectionTableError(
                f"{where}: there is no action {action!r}; names are those of microaction.taxonomy.ACTIONS"
            )
        return _ID_OF_ACTION[action]
    if not isinstance(action, int) or not 0 <= action < len(ACTIONS):
        raise DetectionTableError(f"{where}: action ({action!r}) must be a name or in 0..{len(ACTIONS) - 1}")
    return action
